"""The latents of many pictures → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import Estimate
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, bars_with_intervals, head_line

REACH = 4.5  # standard deviations to either side of the mean that are drawn


def latent_sheet(
    latents: Mapping[str, np.ndarray], found: Mapping[str, Estimate], own: float, title: str
) -> Figure:
    """The scaling factor of each set, and the values of each channel against a Gaussian.

    latents: two sets by name, (b, h, w, c), not scaled; the Gaussian is that of the first. found:
    by name, 1 / standard deviation. own: the model's.
    """
    first = next(iter(latents.values()))
    channels = first.shape[-1]
    figure = PlainFigure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(5, 6))
    axes = left.subplots()
    bars_with_intervals(axes, [*found], [*found.values()])
    axes.axvline(own, color="black", lw=1.2, ls=":", label=f"the model's scaling factor: {own:.4f}")
    axes.set_xlabel("1 / standard deviation of all latent values")
    axes.legend(fontsize=9, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    grid = right.subplots(2, -(-channels // 2), sharex=True, sharey=True, squeeze=False).ravel()
    edges = np.linspace(-REACH, REACH, 81) * first.std() + first.mean()
    for i, axes in enumerate(grid[:channels]):
        draw_channel(axes, {key: y[..., i].ravel() for key, y in latents.items()}, edges)
        axes.set_title(f"raw values of channel {i}", fontsize=10)
    for axes in grid[channels:]:
        axes.set_axis_off()
    handles, labels = grid[0].get_legend_handles_labels()
    right.legend(handles, labels, fontsize=9, frameon=False, loc="outside lower center", ncols=3)
    head_line(figure, title)
    return figure


def draw_channel(axes: Axes, values: Mapping[str, np.ndarray], edges: np.ndarray) -> None:
    x = next(iter(values.values()))
    bell = np.exp(-(((edges - x.mean()) / x.std()) ** 2) / 2) / (x.std() * np.sqrt(2 * np.pi))
    axes.fill_between(edges, bell, color="0.85", label="Gaussian")
    for (key, y), (colour, line, _) in zip(values.items(), STYLES, strict=False):
        density, _ = np.histogram(y, edges, density=True)
        axes.plot((edges[1:] + edges[:-1]) / 2, density, line, color=colour, lw=1.2, label=key)
    axes.set_yticks([])
