"""What guidance does → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure.estimates import COUNTED
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, as_percent, curve_with_intervals, head_line, picture

PERCENT = {"saturated": "saturated pixels, %", "as asked": "pictures as asked, %"}


def guidance_sheet(
    images: np.ndarray,
    sizes: Mapping[str, np.ndarray],
    scales: Sequence[float],
    table: Sequence[Mapping[str, Any]],
    title: str,
) -> Figure:
    """Pictures over the guidance, the predicted noises over the steps, and rates over the guidance.

    images: (scales, H, W, 3) uint8; sizes: name → RMS (steps,); table: a row for each scale.
    """
    figure = PlainFigure(figsize=(14, 6.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(4, 5))
    row = upper.subplots(1, len(images), squeeze=False)[0]
    for axes, image, told in zip(row, images, table, strict=True):
        picture(axes, image)
        axes.set_title(f"guidance {told['guidance']}", fontsize=10)
        asked = f"\n{told['as asked'].short} as asked" if "as asked" in told else ""
        axes.set_xlabel(f"{told['saturated'].short} saturated{asked}", fontsize=9)
    rates = [name for name in PERCENT if name in table[0]]
    first, *others = lower.subplots(1, 1 + len(rates))
    draw_sizes(first, sizes)
    for axes, name in zip(others, rates, strict=True):
        draw_rate(axes, scales, [told[name] for told in table], PERCENT[name])
    head_line(figure, title)
    return figure


def draw_sizes(axes: Axes, sizes: Mapping[str, np.ndarray]) -> None:
    """RMS over the steps, a curve for each name; a logarithmic axis, as they differ in size."""
    for (name, values), (colour, line, marker) in zip(sizes.items(), STYLES, strict=False):
        at = np.arange(1, len(values) + 1)
        axes.plot(at, values, color=colour, ls=line, marker=marker, ms=4, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step, from noise to picture")
    axes.set_ylabel("RMS (Gaussian noise: 1)")
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def draw_rate(axes: Axes, scales: Sequence[float], rates: Sequence[Any], unit: str) -> None:
    """Over the scales, evenly spread, with a dashed line at the first."""
    if rates[0].unit == COUNTED:
        rates = [as_percent(one) for one in rates]
    curve_with_intervals(axes, range(len(scales)), rates, unit)
    axes.axhline(rates[0].value, color="0.3", lw=1, ls="--")
    axes.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
    axes.set_ylim(0, 1.08 * max(one.high if one.high > 0 else one.value for one in rates) + 0.1)
    axes.set_xlabel("guidance")
    axes.set_ylabel(unit)
