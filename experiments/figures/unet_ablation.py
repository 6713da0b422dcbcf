"""What each ablation costs: blocks as bars, heads as a map, pictures."""

import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, FILLS, as_shown, picture, write_into


class Bars(NamedTuple):
    """Knock-outs in order of execution: names and kinds (n), the change in per cent of full scale
    (n,), whether what the prompt names is gone (n,) bool; and how far another picture is, per cent.
    """

    names: Sequence[str]
    kinds: Sequence[str]
    lost: np.ndarray
    gone: np.ndarray
    usual: float


def knockout_sheet(
    bars: Bars,
    layers: Sequence[str],
    heads: np.ndarray,
    images: np.ndarray,
    labels: Sequence[str],
    title: str,
) -> Figure:
    """What each knock-out changes: blocks as bars, heads (layers, heads) in per cent as a map, and
    pictures (n, H, W, 3) in [-1, 1], a label under each."""
    figure = PlainFigure(figsize=(13, 9), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(5, 4))
    draw_bars(upper.subplots(), bars)
    left, right = lower.subfigures(1, 2, width_ratios=(3, 5))
    draw_heads(left, layers, heads)
    columns = -(-len(images) // 2)
    cells = right.subplots(2, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, image, label in zip(cells, images, labels, strict=False):
        axes.set_axis_on()
        picture(axes, as_shown(image))
        axes.set_xlabel(label, fontsize=8)
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=12)
    return figure


def draw_bars(axes: Axes, bars: Bars) -> None:
    x = np.arange(len(bars.names))
    kinds = np.asarray(bars.kinds)
    for kind, (colour, hatch) in zip(dict.fromkeys(bars.kinds), cycle(FILLS), strict=False):
        here = kinds == kind
        axes.bar(
            x[here],
            bars.lost[here],
            0.8,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=kind,
        )
    if bars.gone.any():
        height = bars.lost[bars.gone] + 0.03 * bars.lost.max()
        axes.plot(x[bars.gone], height, "kx", ms=6, label="the judge misses what the prompt names")
    axes.axhline(bars.usual, color="0.3", lw=1, ls="--", label="a picture from another seed")
    axes.set_xticks(x, bars.names, rotation=90, fontsize=8)
    axes.set_xlim(-0.6, len(x) - 0.4)
    axes.set_ylim(0, 1.1 * max(float(bars.lost.max()), bars.usual))
    axes.set_xlabel("block knocked out, in order of execution")
    axes.set_ylabel("change of the picture,\nRMS, % of full scale")
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))


def draw_heads(figure: Figure, layers: Sequence[str], heads: np.ndarray) -> None:
    axes = figure.subplots()
    shown = axes.imshow(heads, cmap=AMOUNT, vmin=0, aspect="auto")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.set_xticks(range(heads.shape[1]))
    axes.set_xlabel("head of the cross-attention")
    if heads.size <= 160:
        write_into(axes, heads)
    figure.colorbar(shown, ax=axes, label="change, RMS, % of full scale")
