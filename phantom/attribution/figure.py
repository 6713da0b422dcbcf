"""The scores of all methods in one picture."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from xray import plots
from xray.plain_figure import PlainFigure

from .rating import SCORES, Row

TITLES = {
    "iou": "IoU with the mask",
    "mass": "part inside the mask",
    "pointing": "its largest value is inside",
    "leakage": "leaks onto the other thing",
    "causal": "ranks as what is lost",
}
TITLE = (
    "Maps of things in scenes of two, held against exact masks; "
    "grey: what knows nothing of its word, and the mask itself"
)
MARKS = (("o", "#0072b2"), ("s", "#d55e00"), ("^", "#009e73"))


def draw(tables: Mapping[str, Sequence[Row]]) -> Figure:
    """A panel for each score, a row for each method, a mark for each phantom."""
    names = [row.method for row in next(iter(tables.values()))]
    first = next((i for i, name in enumerate(names) if name.startswith("start token")), len(names))
    figure = PlainFigure(figsize=(15, 1.6 + 0.3 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(SCORES), sharey=True)
    for axes, score in zip(panels, SCORES, strict=True):
        for shift, ((name, rows), (mark, colour)) in enumerate(
            zip(tables.items(), MARKS, strict=False)
        ):
            told = [getattr(row, score) for row in rows]
            place = np.arange(len(told)) + 0.2 * (shift - (len(tables) - 1) / 2)
            values = [one.value for one in told]
            axes.errorbar(
                values,
                place,
                xerr=plots.whiskers(told),
                fmt=mark,
                color=colour,
                markersize=5,
                linewidth=1.2,
                label=name,
            )
        axes.axhspan(first - 0.5, len(names) - 0.5, color="0.93", zorder=0)
        axes.set_title(TITLES[score], fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    if len(tables) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), fontsize=9, loc="outside lower right")
    plots.head_line(figure, TITLE)
    return figure
