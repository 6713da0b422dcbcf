"""Heat maps of words, and their scores → matplotlib Figures. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import between_extremes
from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, as_shown, picture

COLUMNS = 6
OVER = 0.75  # how much of the heat map; the rest is the picture in grey


def heat_sheet(
    image: np.ndarray,
    heats: Mapping[str, np.ndarray],
    inside: float,
    title: str,
    labels: Mapping[str, str],
) -> Figure:
    """A picture, and each word's heat map over it, from its smallest value to its largest.

    image: (H, W, 3) in [-1, 1]; heats: word → (rows, columns), of whatever grid; inside: the share
    of a map's range at which a line is drawn; labels: word → what stands under its map.
    """
    across = min(COLUMNS, len(heats) + 1)
    down = -(-(len(heats) + 1) // across)
    lines = textwrap.wrap(title, 19 * across)
    size = (2.1 * across + 0.9, 2.5 * down + 0.2 + 0.25 * len(lines))
    figure = PlainFigure(figsize=size, layout="constrained")
    cells = figure.subplots(down, across, squeeze=False).ravel()
    picture(cells[0], as_shown(image))
    cells[0].set_title("picture", fontsize=10)
    for axes, (word, heat) in zip(cells[1:], heats.items(), strict=False):
        shown = heat_over(axes, image, between_extremes(heat), inside)
        axes.set_title(word, fontsize=10)
        axes.set_xlabel(labels[word], fontsize=8)
    for axes in cells[len(heats) + 1 :]:
        axes.set_axis_off()
    bar = figure.colorbar(shown, ax=list(cells), fraction=0.03, pad=0.01)
    bar.set_label(f"share of each map's own range; line at {inside:g}", fontsize=9)
    figure.suptitle("\n".join(lines), fontsize=11)
    return figure


def heat_over(axes: Axes, image: np.ndarray, level: np.ndarray, inside: float) -> object:
    """A map from 0 to 1 over the grey copy of a picture, and the line around what is inside."""
    h, w = image.shape[:2]
    picture(axes, as_shown(image).mean(-1), cmap="gray", vmin=0, vmax=1)
    extent = (-0.5, w - 0.5, h - 0.5, -0.5)
    if level.min() < inside <= level.max():
        rows, columns = level.shape
        across, down = (
            (np.arange(n) + 0.5) * side / n - 0.5 for n, side in ((columns, w), (rows, h))
        )
        axes.contour(across, down, level, [inside], colors="white", linewidths=1)
    return picture(axes, level, cmap=AMOUNT, vmin=0, vmax=1, alpha=OVER, extent=extent)
