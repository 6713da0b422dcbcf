"""What guidance and the number of steps do → matplotlib Figures. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure
from xray.plots import STYLES, picture


def guidance_sheet(
    images: np.ndarray,
    labels: Sequence[str],
    sizes: Mapping[str, np.ndarray],
    scales: Sequence[float],
    rates: Mapping[str, np.ndarray],
    title: str,
) -> Figure:
    """Pictures over the guidance, the predicted noises over the steps, and rates over the guidance.

    images: (scales, H, W, 3) uint8, a label under each; sizes: name → RMS (steps,); rates: what is
    counted → share of each picture in per cent, (scales, pictures).
    """
    figure = PlainFigure(figsize=(13, 7.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(4, 5))
    row = upper.subplots(1, len(images), squeeze=False)[0]
    for axes, image, label in zip(row, images, labels, strict=True):
        picture(axes, image)
        axes.set_xlabel(label, fontsize=9)
    first, *others = lower.subplots(1, 1 + len(rates))
    draw_sizes(first, sizes)
    for axes, (name, shares) in zip(others, rates.items(), strict=True):
        draw_rate(axes, scales, shares)
        axes.set_ylabel(name)
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=12)
    return figure


def draw_sizes(axes: Axes, sizes: Mapping[str, np.ndarray]) -> None:
    """RMS over the steps, a curve for each name; a logarithmic axis, as they differ in size."""
    for (name, values), (colour, line, marker) in zip(sizes.items(), STYLES, strict=False):
        at = np.arange(1, len(values) + 1)
        axes.plot(at, values, color=colour, ls=line, marker=marker, ms=4, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step, from noise to picture")
    axes.set_ylabel("RMS of the noise (normal noise: 1)")
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def draw_rate(axes: Axes, scales: Sequence[float], shares: np.ndarray) -> None:
    """The mean over pictures with its standard error, and as a dashed line that of the least
    scale; shares: (scales, pictures) in per cent."""
    mean, error = shares.mean(1), shares.std(1, ddof=1) / shares.shape[1] ** 0.5
    colour, line, marker = STYLES[0]
    axes.errorbar(scales, mean, error, color=colour, ls=line, marker=marker, ms=5, capsize=3)
    axes.axhline(mean[0], color="0.3", lw=1, ls="--", label=f"as at guidance {scales[0]:g}")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.set_xscale("log")
    axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
    axes.minorticks_off()
    axes.set_ylim(0, max(1.15 * float((mean + error).max()), 1e-3))
    axes.set_xlabel("guidance")
