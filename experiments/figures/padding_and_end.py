"""A prompt's vectors swapped for another's → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures.rows import add_legend, draw_pairs, lay_out, sheet_of_rows
from xray.measure import standard_error


def swap_sheet(
    images: np.ndarray,
    gone: Mapping[str, np.ndarray],
    shares: Mapping[str, Mapping[str, np.ndarray]],
    title: str,
) -> Figure:
    """A row for each swap: pictures, how far they have gone from A to B, and what they show.

    images: (swaps, n, H, W, 3) uint8; gone: swap → (b,) from 0 to 1; shares: what is judged → whose
    → (swaps, b) bool.
    """
    figure, _, bars = sheet_of_rows(images, [*gone], 1 + len(shares), "taken from B:", title)
    draw_way(bars[0], [*gone.values()])
    for axes, (what, both) in zip(bars[1:], shares.items(), strict=True):
        draw_pairs(axes, {f"shows {who}'s": 100.0 * hits for who, hits in both.items()})
        lay_out(axes, len(gone), "pictures that show it, %", f"whose {what}?")
    for axes in bars:
        axes.set_xlim(0, 108)
        axes.set_xticks([0, 50, 100])
    if shares:
        add_legend(figure, bars[-1])
    return figure


def draw_way(axes: Axes, gone: Sequence[np.ndarray]) -> None:
    means = np.array([100 * some.mean() for some in gone])
    errors = np.array([100 * standard_error(some) for some in gone])
    places = np.arange(len(gone))
    axes.barh(places, means, 0.5, xerr=errors, color="0.45", capsize=3)
    for place, mean, error in zip(places, means, errors, strict=True):
        axes.text(0, place - 0.3, f" {mean:.0f} ± {error:.0f} %", fontsize=9, va="bottom")
    lay_out(axes, len(gone), "from A's picture (0) to B's (100), %", "how far it has gone")
