"""Heat maps of words, and what removing each does → matplotlib Figure. Nothing shows or saves."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from xray.attention import INSIDE
from xray.attention.sheets import heat_over
from xray.measure import Estimate, between_extremes
from xray.plain_figure import PlainFigure
from xray.plots import bars_with_intervals, head_line, picture

COLUMNS, SHOWN = 5, 19  # maps in a row, and in all


def attention_sheet(
    image: np.ndarray, maps: Mapping[str, np.ndarray], moved: Mapping[str, Estimate], title: str
) -> Figure:
    """A picture (H, W, 3) uint8 and each word's map over it; right, how far pictures move where the
    attention to a word is removed."""
    shown = dict(list(maps.items())[:SHOWN])
    rows = -(-(1 + len(shown)) // COLUMNS)
    width, height = 1.9 * COLUMNS + 0.8 + (5.0 if moved else 0), max(2.25 * rows + 0.9, 4.5)
    figure = PlainFigure(figsize=(width, height), layout="constrained")
    left, *right = figure.subfigures(
        1,
        1 + bool(moved),
        width_ratios=(1.9 * COLUMNS + 0.8, 5.0)[: 1 + bool(moved)],
        squeeze=False,
    )[0]
    cells = left.subplots(rows, COLUMNS, squeeze=False).ravel()
    picture(cells[0], image)
    cells[0].set_title("picture", fontsize=10)
    for axes, (word, heat) in zip(cells[1:], shown.items(), strict=False):
        drawn = heat_over(axes, image / 127.5 - 1, between_extremes(heat), INSIDE)
        axes.set_title(word, fontsize=10)
    for axes in cells[1 + len(shown) :]:
        axes.set_axis_off()
    bar = left.colorbar(drawn, ax=list(cells), fraction=0.03, pad=0.01)
    bar.set_label(f"share of each map's own range; line at {INSIDE:g}", fontsize=9)
    for part in right:
        axes = part.subplots()
        bars_with_intervals(axes, [*moved], [*moved.values()])
        axes.set_title("attention to it set to zero: pictures move", fontsize=10)
        axes.set_xlabel("RMS, % of full scale")
    head_line(figure, title)
    return figure
