"""Arrays → matplotlib Figures. Nothing here shows or saves."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .plain_figure import PlainFigure

SIGNED = "RdBu_r"  # around zero: told apart by the colour-blind, and in print
AMOUNT = "viridis"


def as_shown(images: np.ndarray) -> np.ndarray:
    """[-1, 1] → [0, 1] for imshow."""
    return np.clip(np.asarray(images, np.float32) / 2 + 0.5, 0, 1)


def film_strip(images: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Pictures (n, H, W, 3) in [-1, 1] side by side, a label under each."""
    n = len(images)
    width = max(1.5 * n, 5.0)  # inches; a line of the title holds about eleven letters in each
    lines = textwrap.wrap(title, int(11 * width), max_lines=3, placeholder=" …")
    figure = PlainFigure(figsize=(width, 2.1 + 0.2 * len(lines)), layout="constrained")
    row = figure.subplots(1, n, squeeze=False)[0]
    for axes, image, label in zip(row, images, labels, strict=True):
        picture(axes, as_shown(image))
        axes.set_xlabel(label, fontsize=9)
    figure.suptitle("\n".join(lines), fontsize=11)
    return figure


def picture(axes: Axes, image: np.ndarray, **options) -> object:
    """An image with its frame and no ticks; pixels stay square and sharp."""
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(image, interpolation="nearest", **options)


def encoder_sheet(
    image: np.ndarray, back: np.ndarray, mean: np.ndarray, deviation: np.ndarray, title: str
) -> Figure:
    """A photograph, its round trip, where they differ, and the posterior, channel by channel.

    image, back: (H, W, 3) in [-1, 1]; mean, deviation: (h, w, 4), scaled to latent units.
    """
    channels = mean.shape[-1]
    figure = PlainFigure(figsize=(2.5 * channels + 0.6, 8.2), layout="constrained")
    rows = figure.subplots(3, channels)
    error = np.abs(back - image).mean(-1) * 50  # of the way from black to white, in per cent
    shown = [("photograph", as_shown(image), {}), ("encoded and decoded", as_shown(back), {})]
    for axes, (name, values, options) in zip(rows[0][:2], shown, strict=True):
        picture(axes, values, **options)
        axes.set_title(name, fontsize=10)
    map_with_bar(figure, rows[0][2], error, "error, % of full scale", cmap=AMOUNT, vmin=0)
    histogram(rows[0][3], mean)
    for axes in rows[0][4:]:
        axes.set_axis_off()
    reach = float(np.abs(mean).max())
    for i in range(channels):
        map_with_bar(
            figure,
            rows[1][i],
            mean[..., i],
            f"mean, channel {i}",
            cmap=SIGNED,
            vmin=-reach,
            vmax=reach,
        )
        map_with_bar(
            figure, rows[2][i], deviation[..., i], f"deviation, channel {i}", cmap=AMOUNT, vmin=0
        )
    figure.suptitle(title, fontsize=12, wrap=True)
    return figure


def map_with_bar(figure: Figure, axes: Axes, values: np.ndarray, name: str, **options) -> None:
    """A map of one number per cell, with its colour bar underneath."""
    shown = picture(axes, values, **options)
    figure.colorbar(shown, ax=axes, location="bottom", fraction=0.06, pad=0.03)
    axes.set_title(name, fontsize=10)


def histogram(axes: Axes, mean: np.ndarray) -> None:
    """The values of each latent channel, against the standard normal that the UNet expects."""
    reach = max(4.0, float(np.abs(mean).max()))
    edges = np.linspace(-reach, reach, 61)
    for i in range(mean.shape[-1]):
        style = ("-", "--", "-.", ":")[i % 4]
        density, _ = np.histogram(mean[..., i], edges, density=True)
        axes.plot((edges[1:] + edges[:-1]) / 2, density, style, label=f"channel {i}", lw=1.2)
    normal = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    axes.fill_between(edges, normal, color="0.85", label="normal")
    axes.set_title("scaled latent values", fontsize=10)
    axes.set_yticks([])
    axes.legend(fontsize=7, frameon=False)
