"""The UNet's features, and what probes read off them → matplotlib Figure. Nothing is saved here."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from xray.methods.linear_probe import Scores
from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, picture


class Layout(NamedTuple):
    """A run's features at some of its steps."""

    shown: np.ndarray  # (k,) the steps
    expected: np.ndarray  # (k, H, W, 3) uint8: what the picture was expected to be
    colours: Mapping[str, np.ndarray]  # block → (k, h, w, 3) from 0 to 1
    alike: Mapping[str, np.ndarray]  # block → (steps,) how much like the last step


def features_sheet(layout: Layout, scores: Scores | None, title: str) -> Figure:
    """Colours over the steps, a row for each block; and, where there are scores, two maps of them
    and the masks that were drawn."""
    rows, columns = 1 + len(layout.colours), len(layout.shown)
    wide, high = 1.4 * max(columns, 3) + 1.3, 1.45 * rows + 0.9
    figure = PlainFigure(figsize=(wide + (9.2 if scores else 0), high), layout="constrained")
    if scores:
        left, right = figure.subfigures(1, 2, width_ratios=(wide, 9.2))
        upper, lower = right.subfigures(2, 1, height_ratios=(1.9, 1))
        draw_scores(upper, scores)
        draw_masks(lower, scores)
    else:
        left = figure.subfigures(1, 1)
    draw_colours(left, layout)
    figure.suptitle("\n".join(textwrap.wrap(title, int(8.5 * figure.get_figwidth()))), fontsize=12)
    return figure


def draw_colours(figure: SubFigure, layout: Layout) -> None:
    cells = figure.subplots(1 + len(layout.colours), len(layout.shown), squeeze=False)
    figure.suptitle(
        "first three components of the features as colours; below: likeness to the last step",
        fontsize=10,
    )
    cells[0, 0].set_ylabel("expected\npicture", fontsize=9)
    for column, step in enumerate(layout.shown):
        picture(cells[0, column], layout.expected[column])
        cells[0, column].set_title(f"step {step + 1}", fontsize=10)
    for row, (block, colours) in enumerate(layout.colours.items(), start=1):
        cells[row, 0].set_ylabel(named(block), fontsize=9)
        for column, step in enumerate(layout.shown):
            picture(cells[row, column], colours[column])
            cells[row, column].set_xlabel(f"{layout.alike[block][step]:.2f}", fontsize=8)


def draw_scores(figure: SubFigure, scores: Scores) -> None:
    first, second = figure.subplots(2, 1)
    bounds = [f"{named(name, ' ')} (≤ {bound:.2f})" for name, bound in scores.bounds.items()]
    draw_map(first, scores.things, bounds, scores.times)
    first.set_title("things or background? IoU of a linear probe with unseen masks", fontsize=10)
    draw_map(second, scores.sides, [named(name, " ") for name in scores.sides], scores.times)
    second.set_title("left or right thing? share of cells told right (chance: 0.50)", fontsize=10)
    second.set_xlabel("timestep t, from noise to picture")


def draw_map(
    axes: Axes, values: Mapping[str, np.ndarray], names: Sequence[str], times: Sequence[int]
) -> None:
    """The mean over pictures, a row for each name, with its numbers."""
    means = np.stack([rows.mean(1) for rows in values.values()])  # (names, times)
    shown = axes.imshow(means, cmap=AMOUNT, aspect="auto")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xticks(range(len(times)), times)
    axes.figure.colorbar(shown, ax=axes, fraction=0.03)
    middle = (means.min() + means.max()) / 2
    for (row, column), value in np.ndenumerate(means):
        colour = "white" if value < middle else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)


def draw_masks(figure: SubFigure, scores: Scores) -> None:
    cells = figure.subplots(2, 1 + -(-len(scores.times) // 2)).ravel()
    labels = ["unseen scene", "its things", *(f"t = {t}" for t in scores.times)]
    images = [scores.picture, scores.mask, *scores.drawn]
    for axes, image, label in zip(cells, images, labels, strict=False):
        picture(axes, image, **({"cmap": "gray", "vmin": 0, "vmax": 1} if image.ndim == 2 else {}))
        axes.set_xlabel(label, fontsize=9)
    figure.suptitle(f"what the probe on {named(scores.best, ' ')} draws under noise", fontsize=10)


def named(block: str, gap: str = "\n") -> str:
    """'down_blocks 0' of 'unet.down_blocks.0:0'."""
    short = block.removeprefix("unet.").removesuffix(":0")
    return short.replace("_blocks.", f" block{gap}").replace("mid_", f"mid{gap}")
