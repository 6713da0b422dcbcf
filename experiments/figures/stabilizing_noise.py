"""Sampling with more or less fresh noise → matplotlib Figure. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from xray import measure
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, as_shown, picture

SHOWN = 4  # pictures of each rule


class Curves(NamedTuple):
    """The variance of x on the way, for each rule, and what it should be."""

    times: np.ndarray  # (steps,)
    variances: np.ndarray  # (rules, steps)
    due: np.ndarray  # (steps,)


def noise_sheet(
    names: Sequence[str],
    images: np.ndarray,
    curves: Curves,
    bars: Mapping[str, np.ndarray],
    title: str,
) -> Figure:
    """What each rule draws from the same noises, the variance on the way, and what it ends in.

    images: (rules, pictures, H, W, 3) in [-1, 1]; bars: name → (rules, pictures), per cent.
    """
    figure = PlainFigure(figsize=(14, 10), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(6, 7))
    draw_pictures(left, names, images)
    above, below = right.subfigures(2, 1, height_ratios=(6, 4))
    draw_variances(above.subplots(), names, curves)
    panels = below.subplots(1, len(bars), sharey=True, squeeze=False)[0]
    for axes, (label, values) in zip(panels, bars.items(), strict=True):
        draw_means(axes, names, values)
        axes.set_xlabel(f"{label}, %")
    figure.suptitle("\n".join(textwrap.wrap(title, 125)), fontsize=12)
    return figure


def draw_pictures(figure: SubFigure, names: Sequence[str], images: np.ndarray) -> None:
    """A row for each rule, a column for each noise."""
    shown = images[:, :SHOWN]
    grid = figure.subplots(*shown.shape[:2], squeeze=False)
    for row, name, some in zip(grid, names, shown, strict=True):
        for axes, image in zip(row, some, strict=True):
            picture(axes, as_shown(image))
        row[0].set_ylabel(name.replace(", ", ",\n"), fontsize=9)
    for i, axes in enumerate(grid[0]):
        axes.set_title(f"noise {i + 1}", fontsize=9)


def draw_variances(axes: Axes, names: Sequence[str], curves: Curves) -> None:
    """From noise, on the left, to picture."""
    label = "the schedule, 1 − ᾱ + ᾱ·var(x0)"
    axes.plot(curves.times, curves.due, color="0.75", lw=7, label=label)
    for i, (name, values) in enumerate(zip(names, curves.variances, strict=True)):
        colour, line, marker = STYLES[i % len(STYLES)]
        face = colour if i < len(STYLES) else "white"
        style = {"color": colour, "ls": line, "marker": marker, "mfc": face, "ms": 5}
        axes.plot(curves.times, values, **style, markevery=(i % len(values), 7), label=name)
    axes.set_yscale("log")
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0.7 * min(curves.variances.min(), 0.2), 1.3 * max(curves.variances.max(), 2))
    axes.set_xlim(1000, 0)
    axes.set_xlabel("timestep t, from noise to picture")
    axes.set_ylabel("variance of x at t")
    axes.legend(fontsize=9, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))


def draw_means(axes: Axes, names: Sequence[str], values: np.ndarray) -> None:
    """The mean over pictures and its standard error, a line for each rule."""
    at = np.arange(len(names))
    axes.barh(at, values.mean(1), 0.7, color="#56B4E9")
    error = measure.standard_error(values, axis=1)
    axes.errorbar(values.mean(1), at, xerr=error, fmt="none", ecolor="black", capsize=3)
    axes.set_yticks(at, names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.1 * max(float((values.mean(1) + np.nan_to_num(error)).max()), 1e-3))
