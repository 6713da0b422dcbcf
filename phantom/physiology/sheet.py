"""The physiology of a phantom in one picture."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from xray import plots
from xray.measure import Estimate
from xray.plain_figure import PlainFigure

PANELS = {  # part → what its bars say
    "attention": "cross-attention, % of it",
    "leakage": "a word's heat map, the share on the other thing",
    "patched": "vectors of another prompt put in: things shown, %",
    "patched, way to the other": "the same: how far the run goes to the other's end, %",
    "attention removed": "attention removed: things shown, %",
    "attention removed, moved by": "the same: how far the run moves, %",
    "weight of a word": "attention to a word × …: its thing shown, %",
    "weight of a word, moved by": "the same: how far the run moves, %",
    "ablated": "set to zero: things shown, %",
    "ablated, moved by": "the same: how far the run moves, %",
    "ablated, background": "the same: background right, %",
    "ablated, side": "the same: stands as told, where both are shown, %",
    "stands as first told": "told to change places after …: stands as before, %",
    "direction": "a direction in the middle: % of the word's way",
}


def draw(rows: Mapping[str, Mapping[str, Estimate]], title: str) -> Figure:
    """A panel for each part of the sheet that was measured: case → its value."""
    shown = [part for part in PANELS if rows.get(part)]
    pairs = [shown[i : i + 2] for i in range(0, len(shown), 2)]
    heights = [2 + max(len(rows[part]) for part in pair) for pair in pairs]
    figure = PlainFigure(figsize=(15, 1 + 0.24 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(pairs), 2, squeeze=False, height_ratios=heights)
    for axes, part in zip(grid.flat, shown, strict=False):
        plots.bars_with_intervals(axes, [*rows[part]], [*rows[part].values()])
        axes.set_title(PANELS[part], fontsize=10)
    for axes in grid.flat[len(shown) :]:
        axes.axis("off")
    plots.head_line(figure, title)
    return figure
