"""The physiology of a phantom in one picture."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from xray import plots
from xray.measure import Estimate
from xray.plain_figure import PlainFigure

PANELS = {  # part → what its bars say
    "attention": "cross-attention, % of it",
    "patched": "vectors of another prompt put in: things shown, %",
    "attention removed": "attention removed: things shown, %",
    "weight of a word": "attention to a word × …: its thing shown, %",
    "stands as first told": "told to change places after …: stands as before, %",
    "ablated": "set to zero: things shown, %",
    "direction": "a direction in the middle: % of the word's way",
}


def draw(rows: Mapping[str, Mapping[str, Estimate]], title: str) -> Figure:
    """A panel for each part of the sheet: case → its value."""
    figure = PlainFigure(figsize=(15, 15), layout="constrained")
    heights = [max(len(rows.get(part, ())) for part in pair) for pair in pairs()]
    grid = figure.subplots(len(heights), 2, squeeze=False, height_ratios=[h + 2 for h in heights])
    for axes, (part, told) in zip(grid.flat, PANELS.items(), strict=False):
        cases = rows.get(part, {})
        plots.bars_with_intervals(axes, [*cases], [*cases.values()])
        axes.set_title(told, fontsize=10)
    for axes in grid.flat[len(PANELS) :]:
        axes.axis("off")
    plots.head_line(figure, title)
    return figure


def pairs() -> list[tuple[str, ...]]:
    """The panels, two in a row."""
    names = [*PANELS]
    return [tuple(names[i : i + 2]) for i in range(0, len(names), 2)]
