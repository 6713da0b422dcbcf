"""A photograph through the encoder and back, and what the encoder says of it."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, SIGNED, as_shown, head_line, map_with_bar, picture


def encoder_sheet(arrays: Mapping[str, np.ndarray], title: str) -> Figure:
    """A photograph, its round trip, where they differ, and the posterior, channel by channel.

    arrays: image and round_trip (H, W, 3) in [-1, 1]; mean and std (h, w, 4), in latent units.
    """
    image, back, mean, std = (arrays[name] for name in ("image", "round_trip", "mean", "std"))
    channels = mean.shape[-1]
    figure = PlainFigure(figsize=(2.5 * channels + 0.6, 8.2), layout="constrained")
    rows = figure.subplots(3, channels)
    error = np.abs(back - image).mean(-1) * 50  # of the way from black to white, in per cent
    shown = [("photograph", as_shown(image), {}), ("encoded and decoded", as_shown(back), {})]
    for axes, (name, values, options) in zip(rows[0][:2], shown, strict=True):
        picture(axes, values, **options)
        axes.set_title(name, fontsize=10)
    most = float(np.percentile(error, 99)) or 1.0  # a few pixels would make all others black
    look = {"cmap": AMOUNT, "vmin": 0, "vmax": most}
    map_with_bar(figure, rows[0][2], error, "error, % of full scale", **look)
    histogram(rows[0][3], mean)
    for axes in rows[0][4:]:
        axes.set_axis_off()
    reach = float(np.abs(mean).max())
    for i in range(channels):
        map_with_bar(
            figure,
            rows[1][i],
            mean[..., i],
            f"posterior mean, channel {i}",
            cmap=SIGNED,
            vmin=-reach,
            vmax=reach,
        )
        map_with_bar(
            figure, rows[2][i], std[..., i], f"posterior std, channel {i}", cmap=AMOUNT, vmin=0
        )
    head_line(figure, title)
    return figure


def histogram(axes: Axes, mean: np.ndarray) -> None:
    """The values of each latent channel, against the standard Gaussian that the UNet expects."""
    reach = max(4.0, float(np.abs(mean).max()))
    edges = np.linspace(-reach, reach, 61)
    for i in range(mean.shape[-1]):
        style = ("-", "--", "-.", ":")[i % 4]
        density, _ = np.histogram(mean[..., i], edges, density=True)
        axes.plot((edges[1:] + edges[:-1]) / 2, density, style, label=f"channel {i}", lw=1.2)
    gaussian = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    axes.fill_between(edges, gaussian, color="0.85", label="Gaussian")
    axes.set_title("scaled latent values", fontsize=10)
    axes.set_yticks([])
    axes.legend(fontsize=7, frameon=False)
