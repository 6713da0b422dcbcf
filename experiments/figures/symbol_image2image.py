"""A word as it is learned → matplotlib Figure. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray import measure
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, picture

if TYPE_CHECKING:
    from xray.methods.textual_inversion import Learned

SIDE = 1.4  # inches of a picture


def inversion_sheet(
    rows: Mapping[str, np.ndarray],
    found: "Learned",
    errors: Mapping[str, np.ndarray],
    alike: Mapping[str, np.ndarray],
    title: str,
) -> Figure:
    """What was learned from and what is drawn, row by row; beside it the loss and the likeness.

    rows: 'learned from' and 'others', (n, H, W, 3) uint8; 'drawn' and 'changed', those of each
    word, (words, n, H, W, 3). errors: word → its errors: as which it began, the rival, and what was
    learned. alike: word → likenesses; may be empty.
    """
    rows = labelled([*errors], rows)
    columns = max(map(len, rows.values()))
    pictures, plots = SIDE * columns + 1.8, 5.2
    height = SIDE * len(rows) + 1.0
    figure = PlainFigure(figsize=(pictures + plots, height), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(pictures, plots))
    draw_rows(left.subplots(len(rows), columns, squeeze=False), rows)
    panels = right.subplots(2 if alike else 1, 1, squeeze=False)[:, 0]
    draw_losses(panels[0], [*errors], found)
    if alike:
        draw_likeness(panels[1], alike)
    width = int(10.5 * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.wrap(title, width)), fontsize=12)
    return figure


def labelled(words: Sequence[str], rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Label → pictures; of what became of other pictures, the rival's is left out."""
    drawn = {f"drawn:\n“{word}”": some for word, some in zip(words, rows["drawn"], strict=True)}
    changed = {f"turned into\n“{words[i]}”": rows["changed"][i] for i in (0, -1)}
    return {
        "learned from": rows["learned from"],
        **drawn,
        "other things": rows["others"],
        **changed,
    }


def draw_rows(grid: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
    for line, (label, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(line, images, strict=False):
            picture(axes, image)
        for axes in line[len(images) :]:
            axes.set_axis_off()
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9.5)


def draw_losses(axes: Axes, words: Sequence[str], found: "Learned") -> None:
    """Means; the band is one standard error of the difference to the word that it began as."""
    start, rival, word = words
    (blue, line, marker), *styles = STYLES
    mean = found.curve.mean(axis=1)
    error = measure.standard_error(found.curve - found.curve[0], axis=1)
    axes.fill_between(found.steps, mean - error, mean + error, color=blue, alpha=0.2, lw=0)
    axes.plot(found.steps, mean, line, marker=marker, color=blue, label=f"“{word}”, as it learns")
    others = {
        f"“{start}”, as which it began": found.curve[0],
        f"“{rival}”, the best word near it": found.of_rival,
        "a random direction (control)": found.of_random,
    }
    for (told, values), (colour, dashes, _) in zip(others.items(), styles, strict=False):
        axes.axhline(values.mean(), color=colour, ls=dashes, label=told)
    axes.set_title("how well it predicts the noise in unseen examples", fontsize=10.5)
    axes.set_xlabel("steps of gradient descent")
    axes.set_ylabel("squared error of the predicted noise")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.5 * (high - low))  # the legend's room
    axes.legend(fontsize=8.5, frameon=False, loc="upper right")


def draw_likeness(axes: Axes, alike: Mapping[str, np.ndarray]) -> None:
    """A dot for each picture that was drawn, a line for the mean of a word."""
    learned, *known = STYLES[: len(alike)]  # as in the curves
    for y, (values, style) in enumerate(zip(alike.values(), (*known, learned), strict=True)):
        colour, _, marker = style
        spread = y + np.linspace(-0.18, 0.18, len(values))
        axes.plot(values, spread, marker, color=colour, ms=5, alpha=0.8)
        axes.vlines(values.mean(), y - 0.32, y + 0.32, color=colour, lw=2.5)
    axes.set_yticks(range(len(alike)), [f"“{word}”" for word in alike], fontsize=9.5)
    axes.set_ylim(len(alike) - 0.5, -0.5)
    axes.set_title("do the drawn pictures look like it? (line: mean)", fontsize=10.5)
    axes.set_xlabel("likeness to the sprite; 1 is the sprite itself")
    axes.grid(axis="x", alpha=0.3)
