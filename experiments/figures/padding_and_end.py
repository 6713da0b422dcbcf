"""A prompt's tokens replaced by another's → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.rows import draw_estimates, lay_out, sheet_of_rows, write_cells
from xray.measure import Estimate

SHOWN = 4  # pictures in a row


def sheet(
    images: Mapping[str, np.ndarray], table: Sequence[Mapping[str, str | Estimate]], title: str
) -> Figure:
    """A row for what was replaced: pictures, what they show, and how far they moved from A to B.

    images: what was replaced → (n, H, W, 3) uint8; table: its rows in that order.
    """
    _, what, *judged = table[0]
    shown = np.stack([some[:SHOWN] for some in images.values()])
    figure, _, panels = sheet_of_rows(shown, [*images], 1 + bool(judged), "replaced:", title)
    draw_estimates(panels[-1], [row[what] for row in table])
    lay_out(panels[-1], len(table), "from A's latent (0) to B's (100), %", what)
    panels[-1].set_xlim(0, 105)
    if judged:
        write_cells(panels[0], table, judged)
    return figure
