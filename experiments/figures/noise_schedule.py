"""The forward process → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stable_diffusion_tf import scheduler
from xray.methods.forward_process import Seen
from xray.plain_figure import PlainFigure
from xray.plots import as_shown, head_line, picture

RIGHT, WRONG, OTHER = "#0072B2", "#D55E00", "#009E73"  # told apart by the colour-blind
LINES = ("-.", "--", "-")  # and in print


class Schedule(NamedTuple):
    """A table of ᾱ, (steps,), by its name."""

    name: str
    alphas: np.ndarray


def forward_sheet(
    images: np.ndarray,
    seen: Seen,
    right: Schedule,
    wrong: Schedule,
    x0_variance: float,
    title: str,
) -> Figure:
    """A picture as the noise grows, and four things measured against the formula.

    images: (n, H, W, 3) in [-1, 1], one for each timestep of `seen`.
    """
    figure = PlainFigure(figsize=(14, 7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.9))
    row = above.subplots(1, len(images), squeeze=False)[0]
    for axes, image, t in zip(row, images, seen.t, strict=True):
        picture(axes, as_shown(image))
        axes.set_xlabel(f"t = {t}\n{decibel(t, right.alphas):+.0f} dB", fontsize=9)
    panels = below.subplots(1, 4)
    draw_shares(panels[0], seen, right, wrong)
    draw_variances(panels[1], seen, right, wrong, x0_variance)
    draw_snr(panels[2], seen, right, wrong)
    draw_densities(panels[3], seen, (0, len(seen.t) // 2, -1))
    head_line(figure, title)
    return figure


def draw_shares(axes: Axes, seen: Seen, right: Schedule, wrong: Schedule) -> None:
    for table, colour, line in ((right, RIGHT, "-"), (wrong, WRONG, "--")):
        axes.plot(np.sqrt(table.alphas), line, color=colour, label=f"√ᾱ, {table.name}")
    axes.plot(seen.t, seen.share, "o", color="black", ms=5, label="measured")
    name(axes, "how much of the picture is left", "amplitude in x")


def draw_variances(
    axes: Axes, seen: Seen, right: Schedule, wrong: Schedule, x0_variance: float
) -> None:
    """The noise alone tells two schedules apart; the sum hardly does where var(x0) is near 1."""
    left = 1 - right.alphas
    axes.plot(left, "-", color=RIGHT, label=f"1 − ᾱ, {right.name}")
    axes.plot(1 - wrong.alphas, "--", color=WRONG, label=f"1 − ᾱ, {wrong.name}")
    axes.plot(seen.t, seen.noise, "o", color="black", ms=5, label="measured, of the noise in x")
    total = left + right.alphas * x0_variance
    axes.plot(total, "-.", color=OTHER, label="1 − ᾱ + ᾱ·var(x0)")
    axes.plot(seen.t, seen.variance, "s", mfc="white", mec="black", ms=5, label="measured, of x")
    axes.set_ylim(-0.05, 1.9 * max(1.0, total.max()))
    name(axes, "how much noise there is", "variance")


def draw_snr(axes: Axes, seen: Seen, right: Schedule, wrong: Schedule) -> None:
    for table, colour, line in ((right, RIGHT, "-"), (wrong, WRONG, "--")):
        every = np.arange(len(table.alphas))
        axes.plot(decibel(every, table.alphas), line, color=colour, label=table.name)
    measured = 10 * np.log10(seen.share**2 / seen.noise)
    axes.plot(seen.t, measured, "o", color="black", ms=5, label="measured")
    last = len(right.alphas) - 1
    end = decibel(last, right.alphas)
    axes.annotate(
        f"{end:.1f} dB at the end,\nnot −∞",
        (last, end),
        (0.1, 0.06),
        textcoords="axes fraction",
        fontsize=9,
        arrowprops={"arrowstyle": "->"},
    )
    name(axes, "signal-to-noise ratio ᾱ / (1 − ᾱ)", "dB")


def draw_densities(axes: Axes, seen: Seen, which: Sequence[int]) -> None:
    """Standardised, so that only the form of the distribution is compared."""
    edges = np.linspace(-4, 4, 61)
    gaussian = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    axes.fill_between(edges, gaussian, color="0.85", label="Gaussian")
    for i, colour, line in zip(which, (WRONG, OTHER, RIGHT), LINES, strict=True):
        x = seen.values[i]
        density, _ = np.histogram((x - x.mean()) / x.std(), edges, density=True)
        axes.plot(
            (edges[1:] + edges[:-1]) / 2, density, line, color=colour, label=f"t = {seen.t[i]}"
        )
    name(axes, "is x_t Gaussian?", "density")
    axes.set_xlabel("value of x, in standard deviations")


def decibel(t: int | np.ndarray, alphas: np.ndarray) -> float | np.ndarray:
    """The signal-to-noise ratio at timesteps, a number or (n,), in dB."""
    return 10 * np.log10(scheduler.snr(t, alphas))


def name(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("timestep t")
    axes.set_ylabel(unit)
    axes.legend(fontsize=7.5, frameon=False, loc="upper right")
