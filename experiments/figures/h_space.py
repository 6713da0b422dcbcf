"""What adding a direction does → matplotlib Figures. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import Estimate
from xray.plain_figure import PlainFigure
from xray.plots import bars_with_intervals, curve_with_intervals, head_line, picture


def climb_sheet(
    images: np.ndarray,
    table: Sequence[Mapping[str, Any]],
    reach: Mapping[str, Estimate],
    place: str,
    change: tuple[str, str],
    title: str,
) -> Figure:
    """Pictures over the scale, a row for each curve, and below them what was measured.

    images: (scales + 1, rows, H, W, 3) uint8, last what the words themselves make; table: a row for
    each scale. reach: place → how far its direction goes at scale 1; place: the one that is shown.
    """
    columns, rows = images.shape[:2]
    names = [name for name in table[0] if name != "scale"]
    figure = PlainFigure(figsize=(max(1.6 * columns, 10.5), 9.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.6, 1))
    grid = upper.subplots(rows, columns, squeeze=False)
    labels = [f"scale {row['scale']}".replace("-", "−") for row in table]
    for column, label in enumerate([*labels, f"the word “{change[1]}”"]):
        grid[0, column].set_title(label, fontsize=10)
        for row, name in enumerate(names[:rows]):
            picture(grid[row, column], images[column, row])
            grid[row, 0].set_ylabel("\n".join(textwrap.wrap(name, 16)), fontsize=10)
    left, right = lower.subplots(1, 2)
    draw_curves(left, table, names)
    bars_with_intervals(
        right, [address.removeprefix("unet.") for address in reach], [*reach.values()]
    )
    right.get_yticklabels()[[*reach].index(place)].set_weight("bold")
    right.axvline(0, color="0.6", lw=0.8)
    right.set_title("bold: the place that is steered", fontsize=9, loc="left")
    right.set_xlabel("of the word's own way at scale 1, %")
    head_line(figure, title)
    return figure


def draw_curves(axes: Axes, table: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    scales = [float(row["scale"]) for row in table]
    for style, name in enumerate(names):
        curve_with_intervals(axes, scales, [row[name] for row in table], name, style)
    axes.axhline(0, color="0.6", lw=0.8)
    axes.axhline(100, color="0.6", lw=0.8, ls=":")
    axes.set_xlabel("scale of the direction")
    axes.set_ylabel("of the word's own way, %")
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
