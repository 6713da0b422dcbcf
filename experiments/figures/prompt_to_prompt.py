"""Words edited by attention → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures.rows import add_legend, draw_pairs, lay_out, sheet_of_rows
from xray.plots import as_shown


def edit_sheet(
    images: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
    moved: Mapping[str, np.ndarray],
    right: np.ndarray | None,
    title: str,
) -> Figure:
    """A row for each way to draw the same noises, and how far it is from the first row.

    images: (rows, n, H, W, 3) in [-1, 1]; masks: (n, H, W) bool, outlined in the first row; moved:
    part of the picture → (rows, b) in per cent; right: (rows, b) bool as the judge says, or None.
    """
    panels = 1 if right is None else 2
    figure, cells, bars = sheet_of_rows(as_shown(images), names, panels, "same noises:", title)
    for axes, mask in zip(cells[0], masks, strict=True):
        outline(axes, mask)
    draw_pairs(bars[0], moved)
    lay_out(bars[0], len(names), "RMS, % of full scale", "how far from the source")
    add_legend(figure, bars[0], "of the mask")
    if right is not None:
        draw_pairs(bars[1], {"pictures judged right": 100.0 * right})
        lay_out(bars[1], len(names), "shows what its prompt names, %", "judged right")
        bars[1].set_xlim(0, 108)
    return figure


def outline(axes: Axes, mask: np.ndarray) -> None:
    """A white line, dark at its sides so that it shows on any ground."""
    for colour, width in (("black", 3), ("white", 1.2)):
        axes.contour(mask, levels=[0.5], colors=colour, linewidths=width)
