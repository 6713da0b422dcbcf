"""Comparisons and knock-outs → matplotlib Figures. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle, groupby
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .compare import Comparison, Row
from .plain_figure import PlainFigure
from .plots import AMOUNT, as_shown, picture

STYLES = (  # colour, line, marker: told apart by the colour-blind, and in print
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#000000", "-", "v"),
)
FILLS = (  # colour, hatch
    ("#0072B2", ""),
    ("#E69F00", "//"),
    ("#009E73", "xx"),
    ("#CC79A7", ".."),
    ("#999999", "\\\\"),
)
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LEAST, MOST = 1e-10, 1e2  # relative differences as they are drawn: equal, and infinitely far


# --- where runs part ---------------------------------------------------------------------------


def parting_curves(comparisons: Mapping[str, Comparison], title: str) -> Figure:
    """Relative difference against the order of execution, a curve for each comparison, by name.

    Bands are the parts of the model; a star is the first value past the tolerance.
    """
    order = list(dict.fromkeys(row.address for c in comparisons.values() for row in c.rows))
    place = {address: i for i, address in enumerate(order)}
    figure = PlainFigure(figsize=(12, 5.6 + 0.25 * len(comparisons)), layout="constrained")
    axes = figure.subplots()
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
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=12)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    return figure


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


# --- what knock-outs cost ----------------------------------------------------------------------


class Bars(NamedTuple):
    """Knock-outs in order of execution: names and kinds (n), the change in per cent of full scale
    (n,), whether what the prompt names is gone (n,) bool; and how far another picture is, per cent.
    """

    names: Sequence[str]
    kinds: Sequence[str]
    lost: np.ndarray
    gone: np.ndarray
    usual: float


def knockout_sheet(
    bars: Bars,
    layers: Sequence[str],
    heads: np.ndarray,
    images: np.ndarray,
    labels: Sequence[str],
    title: str,
) -> Figure:
    """What each knock-out changes: blocks as bars, heads (layers, heads) in per cent as a map, and
    pictures (n, H, W, 3) in [-1, 1], a label under each."""
    figure = PlainFigure(figsize=(13, 9), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(5, 4))
    draw_bars(upper.subplots(), bars)
    left, right = lower.subfigures(1, 2, width_ratios=(3, 5))
    draw_heads(left, layers, heads)
    columns = -(-len(images) // 2)
    cells = right.subplots(2, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, image, label in zip(cells, images, labels, strict=False):
        axes.set_axis_on()
        picture(axes, as_shown(image))
        axes.set_xlabel(label, fontsize=8)
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=12)
    return figure


def draw_bars(axes: Axes, bars: Bars) -> None:
    x = np.arange(len(bars.names))
    kinds = np.asarray(bars.kinds)
    for kind, (colour, hatch) in zip(dict.fromkeys(bars.kinds), cycle(FILLS), strict=False):
        here = kinds == kind
        axes.bar(
            x[here],
            bars.lost[here],
            0.8,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=kind,
        )
    if bars.gone.any():
        height = bars.lost[bars.gone] + 0.03 * bars.lost.max()
        axes.plot(x[bars.gone], height, "kx", ms=6, label="the judge misses what the prompt names")
    axes.axhline(bars.usual, color="0.3", lw=1, ls="--", label="a picture from another seed")
    axes.set_xticks(x, bars.names, rotation=90, fontsize=8)
    axes.set_xlim(-0.6, len(x) - 0.4)
    axes.set_ylim(0, 1.1 * max(float(bars.lost.max()), bars.usual))
    axes.set_xlabel("block knocked out, in order of execution")
    axes.set_ylabel("change of the picture,\nRMS, % of full scale")
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))


def draw_heads(figure: Figure, layers: Sequence[str], heads: np.ndarray) -> None:
    axes = figure.subplots()
    shown = axes.imshow(heads, cmap=AMOUNT, vmin=0, aspect="auto")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.set_xticks(range(heads.shape[1]))
    axes.set_xlabel("head of the cross-attention")
    if heads.size <= 160:
        write_into(axes, heads)
    figure.colorbar(shown, ax=axes, label="change, RMS, % of full scale")


def write_into(axes: Axes, values: np.ndarray) -> None:
    """Each number in its cell, in a colour that shows on it."""
    for (row, column), value in np.ndenumerate(values):
        dark = value < 0.6 * values.max()
        colour = "white" if dark else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)
