"""Arrays → matplotlib Figures. Nothing here shows or saves."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import Estimate
from xray.plain_figure import PlainFigure

SIGNED = "RdBu_r"  # around zero: told apart by the colour-blind, and in print
AMOUNT = "viridis"
STYLES = (  # colour, line, marker: told apart by the colour-blind, and in print
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#000000", "-", "v"),
    ("#E69F00", "--", "P"),
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
    """A map of one number per position, with its colour bar underneath."""
    shown = picture(axes, values, **options)
    figure.colorbar(shown, ax=axes, location="bottom", fraction=0.06, pad=0.03)
    axes.set_title(name, fontsize=10)


def write_into(axes: Axes, values: np.ndarray) -> None:
    """Each number in its cell, in a colour that shows on it."""
    for (row, column), value in np.ndenumerate(values):
        dark = value < 0.6 * values.max()
        colour = "white" if dark else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)


# --- estimates ---------------------------------------------------------------------------------


def as_percent(share: Estimate) -> Estimate:
    """A count, as `share_of` gives it, in per cent."""
    value, low, high = (100 * part for part in share[:3])
    return share._replace(value=value, low=low, high=high, unit="%")


def whiskers(estimates: Sequence[Estimate]) -> np.ndarray:
    """How far the intervals reach below and above their values, (2, n), as matplotlib takes them;
    none where an interval is not known."""
    ends = np.array([[one.value - one.low, one.high - one.value] for one in estimates])
    return np.clip(np.nan_to_num(ends), 0, None).T


def curve_with_intervals(
    axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], name: str, style: int = 0
) -> None:
    """Estimates over x, their intervals as whiskers; style: which of STYLES."""
    colour, line, marker = STYLES[style]
    values = [one.value for one in estimates]
    look = {"color": colour, "ls": line, "marker": marker, "ms": 5, "capsize": 3}
    axes.errorbar(x, values, whiskers(estimates), label=name, **look)


def bars_with_intervals(
    axes: Axes, names: Sequence[str], estimates: Sequence[Estimate], fill: int = 0
) -> None:
    """A horizontal bar for each name, the first on top, with its interval; what it amounts to is
    written behind. fill: which of FILLS."""
    colour, hatch = FILLS[fill]
    values, places = np.array([one.value for one in estimates]), np.arange(len(names))
    reach = whiskers(estimates)
    look = {"color": colour, "hatch": hatch, "edgecolor": "white", "ecolor": "0.15", "capsize": 3}
    axes.barh(places, values, 0.6, xerr=reach, **look)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    for place, end, one in zip(places, np.maximum(values + reach[1], 0), estimates, strict=True):
        axes.text(end, place, f"  {one.short}", va="center", fontsize=9)
    axes.margins(x=0.28)


def head_line(figure: Figure, title: str, size: float = 12) -> None:
    """The title over all of the figure, in as many lines as its width asks for."""
    letters = int(120 * figure.get_figwidth() / size)
    lines = [line for part in title.split("\n") for line in textwrap.wrap(part, letters) or [""]]
    figure.suptitle("\n".join(lines), fontsize=size)
