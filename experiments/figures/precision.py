"""Where two runs diverge, value by value."""

from collections.abc import Mapping, Sequence
from itertools import cycle, groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from xray.compare import Comparison, Row
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, head_line

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LEAST, MOST = 1e-10, 1e2  # relative differences as they are drawn: equal, and infinitely far


def parting_curves(
    comparisons: Mapping[str, Comparison], pictures: Mapping[str, np.ndarray], title: str
) -> Figure:
    """Relative difference against the order of execution, a curve for each comparison, by name.
    Below the pictures (H, W, 3) uint8, the first of which is what the others are held against.

    Bands are the parts of the model; a star is the first value past the tolerance.
    """
    order = list(dict.fromkeys(row.address for c in comparisons.values() for row in c.rows))
    place = {address: i for i, address in enumerate(order)}
    figure = PlainFigure(figsize=(12, 8.4 + 0.25 * len(comparisons)), layout="constrained")
    above, below = figure.subfigures(2, height_ratios=[5.6, 2.8])
    axes = above.subplots()
    show_pictures(below, pictures)
    mark_parts(axes, [Row(address, 0, 0).part for address in order])
    for name, style in zip(comparisons, cycle(STYLES), strict=False):
        curve(axes, name, comparisons[name], place, style)
    tolerance = next(iter(comparisons.values())).tolerance
    axes.axhline(tolerance, color="0.3", lw=1, ls=(0, (1, 1)))
    axes.text(len(order) - 0.5, tolerance, f" tolerance\n {tolerance:g}", fontsize=8, va="center")
    scale_by_tens(axes, comparisons.values())
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_xlabel("value, in order of execution")
    axes.set_ylabel("relative difference, max|a − b| / max|b|")
    head_line(figure, title)
    above.legend(loc="outside lower left", fontsize=8, frameon=False)
    return figure


def show_pictures(figure: SubFigure, pictures: Mapping[str, np.ndarray]) -> None:
    """Side by side, each with how far it is from the first."""
    first = next(iter(pictures.values())).astype(int)
    for axes, (name, picture) in zip(
        figure.subplots(1, len(pictures)), pictures.items(), strict=True
    ):
        off = np.abs(picture - first)
        told = f"\noff by {off.mean():.2g} of 255, {off.max()} at most" if name != "float32" else ""
        axes.imshow(picture)
        axes.set_title(name + told, fontsize=9)
        axes.axis("off")


def curve(
    axes: Axes, name: str, comparison: Comparison, place: Mapping[str, int], style: tuple
) -> None:
    colour, line, marker = style
    x = [place[row.address] for row in comparison.rows]
    y = as_drawn(comparison)
    axes.plot(x, y, marker, color=colour, ms=2.5)
    joined = np.where(y == LEAST, np.nan, y)  # no line dives to where values are equal
    label = f"{name}: {comparison.verdict}"
    axes.plot(x, joined, line, color=colour, marker=marker, ms=2.5, lw=0.9, label=label)
    worst = int(np.argmax([row.difference for row in comparison.rows]))
    if comparison.first and y[worst] < MOST:
        told = ".".join(comparison.rows[worst].address.split(".")[-3:])
        place = {"textcoords": "offset points", "xytext": (0, 7), "fontsize": 7.5}
        axes.annotate(told, (x[worst], y[worst]), ha="center", color=colour, **place)
    if first := comparison.first:
        i = comparison.rows.index(first)
        axes.plot(x[i], y[i], "*", ms=15, mfc=colour, mec="black", zorder=5, clip_on=False)


def as_drawn(comparison: Comparison) -> np.ndarray:
    """The differences (rows,), zero and infinity at the places that they have on the axis."""
    return np.clip([row.difference for row in comparison.rows], LEAST, MOST)


def mark_parts(axes: Axes, parts: Sequence[str]) -> None:
    """A band for each part of the model, its name above it."""
    start = 0
    for i, (part, run) in enumerate(groupby(parts)):
        end = start + len(list(run))
        axes.axvspan(start - 0.5, end - 0.5, color="0.93" if i % 2 else "1.0", lw=0, zorder=0)
        middle = (start + end - 1) / 2
        axes.text(
            middle,
            1.01,
            part.replace(" ", "\n"),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=9,
        )
        start = end


def scale_by_tens(axes: Axes, comparisons: Sequence[Comparison]) -> None:
    """A log axis as long as it must be, on which zero and infinity have their places."""
    most = max(as_drawn(comparison).max() for comparison in comparisons)
    low, high = LEAST / 10**0.5, max(3 * most, 1e-3)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    tens = [10.0**n for n in range(-9, int(np.floor(np.log10(high))) + 1)]
    labels = ["10" + str(n).translate(RAISED) for n in range(-9, -9 + len(tens))]
    if most == MOST:
        tens, labels = [*tens[:-1], MOST], [*labels[:-1], "∞"]
    axes.set_yticks([LEAST, *tens], ["equal", *labels])
    axes.minorticks_off()
