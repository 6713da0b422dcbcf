"""Arrays → matplotlib Figures. Nothing here shows or saves."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure

SIGNED = "RdBu_r"  # around zero: told apart by the colour-blind, and in print
AMOUNT = "viridis"
STYLES = (  # colour, line, marker: told apart by the colour-blind, and in print
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#000000", "-", "v"),
)
FILLS = (  # colour, hatch
    ("#0072B2", ""),
    ("#E69F00", "//"),
    ("#009E73", "xx"),
    ("#CC79A7", ".."),
    ("#999999", "\\\\"),
)


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


def map_with_bar(figure: Figure, axes: Axes, values: np.ndarray, name: str, **options) -> None:
    """A map of one number per cell, with its colour bar underneath."""
    shown = picture(axes, values, **options)
    figure.colorbar(shown, ax=axes, location="bottom", fraction=0.06, pad=0.03)
    axes.set_title(name, fontsize=10)


def write_into(axes: Axes, values: np.ndarray) -> None:
    """Each number in its cell, in a colour that shows on it."""
    for (row, column), value in np.ndenumerate(values):
        dark = value < 0.6 * values.max()
        colour = "white" if dark else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)
