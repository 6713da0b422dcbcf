"""Sampling with more or less noise added back → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from xray.plain_figure import PlainFigure
from xray.plots import STYLES, as_shown, head_line, picture

SHOWN = 4  # pictures of each rule


class Curves(NamedTuple):
    """The variance of x on the way, for each rule, and what it should be."""

    times: np.ndarray  # (steps,)
    variances: np.ndarray  # (rules, steps)
    due: np.ndarray  # (steps,)


def noise_sheet(names: Sequence[str], images: np.ndarray, curves: Curves, title: str) -> Figure:
    """What each rule draws from the same noises, and the variance on the way.

    images: (rules, pictures, H, W, 3) in [-1, 1].
    """
    figure = PlainFigure(figsize=(14, 8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(6, 8))
    draw_pictures(left, names, images)
    draw_variances(right.subplots(), names, curves)
    head_line(figure, title)
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
    axes.set_ylabel("variance of x_t")
    axes.legend(fontsize=9, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
