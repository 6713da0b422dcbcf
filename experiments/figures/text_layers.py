"""What the UNet draws from a text encoder with ablated layers → matplotlib Figure."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.rows import draw_estimates, lay_out, sheet_of_rows, write_cells
from xray.measure import Estimate

SHOWN = 4  # prompts
ROWS = 10  # at most


def sheet(
    images: np.ndarray,
    prompts: Sequence[str],
    table: Sequence[Mapping[str, str | Estimate]],
    title: str,
) -> Figure:
    """A row for what acts: pictures, what they show, and how near the whole encoder's the context
    is; of many rows, some.

    images: (rows, n, H, W, 3) uint8; prompts: of the n; table: a row for each.
    """
    at = np.linspace(0, len(table) - 1, min(ROWS, len(table))).round().astype(int)
    rows = [table[i] for i in at]
    what, *judged, cosine = table[0]
    names = [textwrap.fill(row[what], 16) for row in rows]
    shown = images[at, :SHOWN]
    figure, cells, panels = sheet_of_rows(shown, names, 1 + bool(judged), f"{what}:", title)
    for axes, prompt in zip(cells[0], prompts, strict=False):
        axes.set_title(textwrap.fill(prompt, 21), fontsize=8)
    draw_estimates(panels[-1], [row[cosine] for row in rows])
    lay_out(panels[-1], len(rows), "cosine with the whole encoder's", "context")
    panels[-1].set_xlim(0, 1.1)
    if judged:
        write_cells(panels[0], rows, judged)
    return figure
