"""The latents of many pictures → matplotlib Figure. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure

STYLES = (("#0072B2", "-", "o"), ("#D55E00", "--", "s"))  # colour, line, marker; also in print
REACH = 4.5  # deviations to either side of the mean that are drawn


def latent_sheet(
    latents: Mapping[str, np.ndarray],
    scales: Mapping[str, tuple[float, float, float]],
    own: float,
    title: str,
) -> Figure:
    """The values of each channel against a normal distribution, and the scale of each set.

    latents: two sets by name, (b, h, w, c), not scaled; the normal is that of the first.
    scales: by name, 1 / deviation: itself and both ends of its interval. own: the model's.
    """
    first = next(iter(latents.values()))
    channels = first.shape[-1]
    figure = PlainFigure(figsize=(2.8 * (channels + 1), 4.2), layout="constrained")
    panels = figure.subplots(1, channels + 1)
    edges = np.linspace(-REACH, REACH, 81) * first.std() + first.mean()
    for i, axes in enumerate(panels[:-1]):
        draw_channel(axes, {key: y[..., i].ravel() for key, y in latents.items()}, edges)
        axes.set_title(
            f"channel {i}: {first[..., i].mean():+.2f} ± {first[..., i].std():.2f}", fontsize=10
        )
    panels[0].set_ylabel("density")
    panels[0].legend(fontsize=8, frameon=False, loc="upper left")
    tallest = max(axes.get_ylim()[1] for axes in panels[:-1])
    for axes in panels[:-1]:
        axes.set_ylim(0, 1.35 * tallest)  # room for the legend
    draw_scales(panels[-1], scales, own)
    figure.suptitle("\n".join(textwrap.wrap(title, 115)), fontsize=12)
    return figure


def draw_channel(axes: Axes, values: Mapping[str, np.ndarray], edges: np.ndarray) -> None:
    x = next(iter(values.values()))
    bell = np.exp(-(((edges - x.mean()) / x.std()) ** 2) / 2) / (x.std() * np.sqrt(2 * np.pi))
    axes.fill_between(edges, bell, color="0.85", label="normal, same mean\nand deviation")
    for (key, y), (colour, line, _) in zip(values.items(), STYLES, strict=True):
        density, _ = np.histogram(y, edges, density=True)
        axes.plot((edges[1:] + edges[:-1]) / 2, density, line, color=colour, lw=1.2, label=key)
    axes.set_xlabel("raw latent value")


def draw_scales(axes: Axes, scales: Mapping[str, tuple[float, float, float]], own: float) -> None:
    """Bars are intervals over which pictures happen to be in the set."""
    axes.axhline(own, color="black", lw=1, ls=":", label=f"the model's: {own:.4f}")
    for i, ((_, (scale, low, high)), (colour, _, marker)) in enumerate(
        zip(scales.items(), STYLES, strict=True)
    ):
        ends = [[scale - low], [high - scale]]
        axes.errorbar([i], [scale], ends, fmt=marker, color=colour, ms=3, capsize=8)
    axes.set_xticks(range(len(scales)), list(scales))
    axes.set_xlim(-0.6, len(scales) - 0.4)
    axes.set_ylim(0, 1.3 * max(own, *(high for *_, high in scales.values())))
    axes.set_title("scale: 1 / deviation", fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
