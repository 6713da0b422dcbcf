"""Pictures drawn in few steps and in many → matplotlib Figure. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from xray import measure
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, as_shown, picture


class Sampled(NamedTuple):
    """What one sampler drew from the same noises, in several numbers of steps."""

    name: str
    images: np.ndarray  # (counts, pictures, H, W, 3) in [-1, 1]
    far: np.ndarray  # (counts, pictures) from the longest run: RMS, per cent of full scale
    seconds: np.ndarray  # (counts,) a picture took
    right: np.ndarray | None  # (counts, pictures) judged right: 0 or 100 %


class Longest(NamedTuple):
    """The run that the others are compared with."""

    steps: int
    image: np.ndarray  # (H, W, 3) in [-1, 1]
    seconds: float  # a picture took
    usual: float  # how far the picture of another noise is: RMS, per cent of full scale
    right: np.ndarray | None  # (pictures,) judged right: 0 or 100 %


def steps_sheet(
    counts: Sequence[int], samplers: Sequence[Sampled], longest: Longest, title: str
) -> Figure:
    """One noise drawn in growing numbers of steps, a row for each sampler, and the longest run;
    below, the distance to that run, what it costs, and what the judge finds."""
    figure = PlainFigure(figsize=(13, 9), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(5, 4.4))
    rows, last = upper.subfigures(1, 2, width_ratios=(2.3, 1))
    draw_pictures(rows, counts, samplers)
    axes = last.subplots()
    picture(axes, as_shown(longest.image))
    axes.set_title(f"{samplers[0].name}\n{longest.steps} steps", fontsize=10)
    judged = longest.right is not None
    first, second, *third = lower.subplots(1, 3 if judged else 2)
    draw_distances(first, counts, samplers, longest)
    draw_seconds(second, counts, samplers, longest)
    for axes in third:
        draw_right(axes, counts, samplers, longest)
    figure.suptitle("\n".join(textwrap.wrap(title, 120)), fontsize=12)
    return figure


def draw_pictures(figure: SubFigure, counts: Sequence[int], samplers: Sequence[Sampled]) -> None:
    grid = figure.subplots(len(samplers), len(counts), squeeze=False)
    for row, sampler in zip(grid, samplers, strict=True):
        for axes, image, far in zip(row, sampler.images[:, 0], sampler.far[:, 0], strict=True):
            picture(axes, as_shown(image))
            axes.set_xlabel(f"{far:.1f} % away", fontsize=9)
        row[0].set_ylabel(sampler.name, fontsize=10)
    for axes, count in zip(grid[0], counts, strict=True):
        axes.set_title(f"{count} steps", fontsize=10)


def draw_distances(
    axes: Axes, counts: Sequence[int], samplers: Sequence[Sampled], longest: Longest
) -> None:
    draw_means(axes, counts, {sampler.name: sampler.far for sampler in samplers})
    axes.axhline(longest.usual, color="0.3", lw=1, ls=":", label="picture of another noise")
    axes.set_ylim(0, 1.35 * longest.usual)
    name(axes, counts, f"distance to the {longest.steps} steps of η = 0,\nRMS, % of full scale")


def draw_seconds(
    axes: Axes, counts: Sequence[int], samplers: Sequence[Sampled], longest: Longest
) -> None:
    for sampler, (colour, line, marker) in zip(samplers, STYLES, strict=False):
        taken, at = sampler.seconds, counts
        if sampler is samplers[0]:
            taken, at = [*taken, longest.seconds], [*counts, longest.steps]
        axes.plot(at, taken, color=colour, ls=line, marker=marker, ms=5, label=sampler.name)
    axes.set_ylim(bottom=0)
    name(axes, [*counts, longest.steps], "seconds a picture takes")


def draw_right(
    axes: Axes, counts: Sequence[int], samplers: Sequence[Sampled], longest: Longest
) -> None:
    draw_means(axes, counts, {sampler.name: sampler.right for sampler in samplers})
    label = f"{longest.steps} steps of η = 0"
    axes.axhline(longest.right.mean(), color="0.3", lw=1, ls=":", label=label)
    axes.set_ylim(0, 135)
    axes.set_yticks(range(0, 101, 20))
    name(axes, counts, "pictures judged right, %")


def draw_means(axes: Axes, counts: Sequence[int], values: Mapping[str, np.ndarray]) -> None:
    """Means of (counts, pictures) with standard errors, side by side, so that none is hidden."""
    for i, (key, (colour, line, marker)) in enumerate(zip(values, STYLES, strict=False)):
        mean, error = values[key].mean(1), measure.standard_error(values[key], axis=1)
        style = {"color": colour, "ls": line, "marker": marker, "ms": 5, "capsize": 3}
        axes.errorbar(np.array(counts) * 1.04**i, mean, error, **style, label=key)


def name(axes: Axes, counts: Sequence[int], unit: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("steps, two UNet calls each")
    axes.set_ylabel(unit)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
