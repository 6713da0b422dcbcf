"""What training asks of a UNet → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from xray.methods.denoising_loss import Errors
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, as_shown, curve_with_intervals, head_line, picture


def training_sheet(
    rows: Mapping[str, np.ndarray],
    times: Sequence[int],
    caption: str,
    errors: Errors,
    table: Sequence[Mapping[str, Any]],
    title: str,
) -> Figure:
    """One picture at some timesteps, the errors at all of them, and what words save.

    rows: name → (n, H, W, 3) in [-1, 1], one for each of `times`; caption: its own words; table:
    a row for each timestep of the errors, with what is "saved against" other words.
    """
    figure = PlainFigure(figsize=(13, 11.5), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(7, 4.5))
    draw_rows(upper, rows, times)
    upper.suptitle(f"one picture, with its own words “{caption}”", fontsize=10)
    first, second, third = lower.subplots(1, 3)
    draw_errors(first, errors)
    draw_shares(second, errors)
    third.axhline(0, color="0.3", lw=1, ls=":")
    for style, name in enumerate(name for name in table[0] if name.startswith("saved")):
        curve_with_intervals(third, errors.t, [row[name] for row in table], name, style)
    finish(third, "error saved by the right words, %")
    head_line(figure, title)
    return figure


def draw_rows(figure: SubFigure, rows: Mapping[str, np.ndarray], times: Sequence[int]) -> None:
    grid = figure.subplots(len(rows), len(times), squeeze=False)
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(line, images, strict=True):
            picture(axes, as_shown(image))
        line[0].set_ylabel(name, fontsize=10)
    for axes, t in zip(grid[0], times, strict=True):
        axes.set_title(f"t = {t}", fontsize=10)


def draw_errors(axes: Axes, errors: Errors) -> None:
    curves = {
        "noise: the UNet": errors.noise,
        "noise: best multiple of x_t": errors.scaled,
        "x̂0: the UNet": errors.x0,
    }
    axes.axhline(1, color="0.3", lw=1, ls=":", label="noise: always zero")
    for (name, values), style in zip(curves.items(), STYLES, strict=False):
        curve(axes, errors.t, values, style, name)
    axes.set_yscale("log")
    finish(axes, "mean square error")


def draw_shares(axes: Axes, errors: Errors) -> None:
    """What is known of the noise, and so of the picture: one falls where the other rises."""
    shares = {"of the noise": 1 - errors.noise, "of x̂0": 1 - errors.x0 / errors.variance}
    for (name, values), style in zip(shares.items(), (STYLES[0], STYLES[2]), strict=True):
        curve(axes, errors.t, 100 * values, style, name)
    low = min(0.0, *(100 * values.min() for values in shares.values()))
    axes.set_ylim(max(low, -100) - 3, 105)
    finish(axes, "variance explained by the UNet, %")


def curve(axes: Axes, t: np.ndarray, values: np.ndarray, style: tuple, label: str) -> None:
    colour, line, marker = style
    axes.plot(t, values, color=colour, ls=line, marker=marker, ms=5, label=label)


def finish(axes: Axes, unit: str) -> None:
    axes.set_xlabel("timestep t, from picture to noise")
    axes.set_ylabel(unit)
    axes.legend(fontsize=9, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
