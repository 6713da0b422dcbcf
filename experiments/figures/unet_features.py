"""The UNet's features, and what probes read off them → matplotlib Figure. Nothing is saved here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from xray.methods.linear_probe import Scores
from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, head_line, picture


def colours_sheet(
    x0: np.ndarray,
    colours: Mapping[str, np.ndarray],
    alike: Mapping[str, np.ndarray],
    shown: Sequence[int],
    title: str,
) -> Figure:
    """A run's features at some of its steps, a row for each block.

    x0: (k, H, W, 3) uint8, the predicted clean image at the steps `shown`, (k,); colours: block →
    (k, h, w, 3) from 0 to 1; alike: block → (steps,), how much like the last step's.
    """
    rows, columns = 1 + len(colours), len(shown)
    size = 1.45 * max(columns, 4) + 1.2, 1.55 * rows + 0.9
    figure = PlainFigure(figsize=size, layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False)
    cells[0, 0].set_ylabel("predicted clean\nimage x̂0", fontsize=9)
    for column, step in enumerate(shown):
        picture(cells[0, column], x0[column])
        cells[0, column].set_title(f"step {step + 1}", fontsize=10)
    for row, (block, maps) in enumerate(colours.items(), start=1):
        cells[row, 0].set_ylabel(block, fontsize=9)
        for column, step in enumerate(shown):
            picture(cells[row, column], maps[column])
            cells[row, column].set_xlabel(f"cosine {alike[block][step]:.2f}", fontsize=8)
    head_line(figure, title, 11)
    return figure


def scores_sheet(scores: Scores, table: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """The IoU of the probes, and the masks that the best of them draws. table: a row for each
    features, their name and then an estimate for each timestep."""
    figure = PlainFigure(figsize=(10.5, 7.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.9, 1))
    draw_map(upper.subplots(), table, scores)
    draw_masks(lower, scores)
    head_line(figure, title)
    return figure


def draw_map(axes: Axes, table: Sequence[Mapping[str, Any]], scores: Scores) -> None:
    """The mean over scenes, with half of its interval's width."""
    cells = [[*row.values()][1:] for row in table]
    means = np.array([[one.value for one in row] for row in cells])  # (features, times)
    shown = axes.imshow(means, cmap=AMOUNT, aspect="auto", vmin=0)
    bounds = [f"{named(name)} (≤ {bound:.2f})" for name, bound in scores.bounds.items()]
    axes.set_yticks(range(len(bounds)), bounds, fontsize=9)
    axes.set_xticks(range(len(scores.times)), scores.times)
    axes.set_xlabel("timestep t, from noise to picture", fontsize=9)
    axes.set_title(
        f"IoU with the masks of {cells[0][0].n} scenes, ± half the 95 % interval", size=10
    )
    axes.figure.colorbar(shown, ax=axes, fraction=0.03)
    for (row, column), value in np.ndenumerate(means):
        colour = "white" if value < 0.55 * means.max() else "black"
        said = f"{value:.2f} ± {cells[row][column].width / 2:.2f}"
        axes.text(column, row, said, ha="center", va="center", fontsize=8, color=colour)


def draw_masks(figure: SubFigure, scores: Scores) -> None:
    cells = figure.subplots(2, 1 + -(-len(scores.times) // 2)).ravel()
    labels = ["unseen scene", "its mask", *(f"t = {t}" for t in scores.times)]
    images = [scores.picture, scores.mask, *scores.drawn]
    for axes, image, label in zip(cells, images, labels, strict=False):
        picture(axes, image, **({"cmap": "gray", "vmin": 0, "vmax": 1} if image.ndim == 2 else {}))
        axes.set_xlabel(label, fontsize=9)
    for axes in cells[len(images) :]:
        axes.set_axis_off()
    figure.suptitle(f"what the probe on {named(scores.best)} draws of one scene", fontsize=10)


def named(block: str) -> str:
    """'down_blocks.0' of 'unet.down_blocks.0:0'."""
    return block.removeprefix("unet.").removesuffix(":0")
