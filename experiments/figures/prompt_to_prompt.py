"""Words edited by attention → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures.rows import draw_estimates, lay_out, sheet_of_rows, write_cells
from xray.plots import as_shown

SHOWN = 4  # noises


def edit_sheet(
    images: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
    table: Sequence[Mapping[str, Any]],
    title: str,
) -> Figure:
    """A row for each way to draw the same noises, and how far it is from the first row.

    images: (rows, n, H, W, 3) in [-1, 1]; masks: (n, H, W) bool, outlined in the first row.
    """
    judged = [name for name in ("as asked",) if name in table[0]]
    shown = as_shown(images[:, :SHOWN])
    figure, pictures, panels = sheet_of_rows(shown, names, 2 + len(judged), "same noises:", title)
    for axes, mask in zip(pictures[0], masks, strict=False):
        outline(axes, mask)
    for axes, part in zip(panels, ("outside", "inside"), strict=False):
        draw_estimates(axes, [row[part] for row in table])
        lay_out(axes, len(names), "RMS to the source, % of full scale", f"{part} of the mask")
    if judged:
        write_cells(panels[-1], table, judged)
    return figure


def outline(axes: Axes, mask: np.ndarray) -> None:
    """A white line, dark at its sides so that it shows on any ground."""
    for colour, width in (("black", 3), ("white", 1.2)):
        axes.contour(mask, levels=[0.5], colors=colour, linewidths=width)
