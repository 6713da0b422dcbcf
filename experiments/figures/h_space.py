"""What adding a direction does → matplotlib Figures. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure
from xray.plots import STYLES, picture


class Climb(NamedTuple):
    """What multiples of a direction do to pictures; curve → (scales, pictures)."""

    scales: Sequence[float]
    shares: Mapping[str, np.ndarray]  # of the way that the word itself goes
    judged: Mapping[str, np.ndarray]  # whether they show what the word asks for; {}: unknown


def climb_sheet(
    images: np.ndarray,
    found: Climb,
    reach: Mapping[str, np.ndarray],
    place: str,
    change: tuple[str, str],
    title: str,
) -> Figure:
    """Pictures over the scale, a row for each curve, and below them what was measured.

    images: (scales + 1, curves, H, W, 3) uint8, last what the words themselves make. reach: place →
    how far its direction goes at scale 1, (n,); place: the one that is shown; change: the words.
    """
    columns = len(images)
    figure = PlainFigure(figsize=(max(1.6 * columns, 9.6), 9.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.6, 1))
    cells = upper.subplots(len(found.shares), columns, squeeze=False)
    labels = [f"scale {scale:g}".replace("-", "−") for scale in found.scales] + [
        f"the word “{change[1]}”"
    ]
    for column, label in enumerate(labels):
        cells[0, column].set_title(label, fontsize=10)
        for row, name in enumerate(found.shares):
            picture(cells[row, column], images[column, row])
            cells[row, 0].set_ylabel("\n".join(textwrap.wrap(name, 16)), fontsize=10)
    panels = iter(lower.subplots(1, 3 if found.judged else 2))
    draw_curves(next(panels), found.scales, found.shares, "of the word's own way, %")
    if found.judged:
        draw_curves(
            next(panels), found.scales, found.judged, f"pictures that show “{change[1]}”, %"
        )
    draw_reach(next(panels), reach, place)
    figure.suptitle("\n".join(textwrap.wrap(title, 100)), fontsize=11)
    return figure


def draw_curves(
    axes: Axes, scales: Sequence[float], curves: Mapping[str, np.ndarray], name: str
) -> None:
    """Means over pictures, (scales, pictures) each, in per cent, with their standard errors."""
    for (label, values), (colour, line, marker) in zip(curves.items(), STYLES, strict=False):
        mean, error = 100 * values.mean(1), 100 * values.std(1, ddof=1) / values.shape[1] ** 0.5
        axes.errorbar(
            scales, mean, error, color=colour, ls=line, marker=marker, ms=5, capsize=3, label=label
        )
    axes.axhline(0, color="0.6", lw=0.8)
    axes.axhline(100, color="0.6", lw=0.8, ls=":")
    axes.set_xlabel("scale of the direction")
    axes.set_ylabel(name)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))


def draw_reach(axes: Axes, reach: Mapping[str, np.ndarray], place: str) -> None:
    """A bar for each place, that which was chosen dark."""
    mean = [100 * share.mean() for share in reach.values()]
    error = [100 * share.std(ddof=1) / len(share) ** 0.5 for share in reach.values()]
    names = [address.removeprefix("unet.") for address in reach]
    colours = [STYLES[0][0] if address == place else "0.75" for address in reach]
    axes.barh(names, mean, 0.7, xerr=error, color=colours, capsize=3)
    axes.invert_yaxis()  # in order of execution, from above
    axes.axvline(0, color="0.6", lw=0.8)
    axes.set_title("dark: the place that is steered", fontsize=9, loc="left")
    axes.set_xlabel("of the word's way, %, at scale 1")
