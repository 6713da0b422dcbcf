"""A photograph through the encoder and back, and what the encoder says of it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, SIGNED, as_shown, map_with_bar, picture


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
