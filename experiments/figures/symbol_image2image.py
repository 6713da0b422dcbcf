"""A word as it is learned → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import mean_of
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, curve_with_intervals, head_line, picture, whiskers

if TYPE_CHECKING:
    from xray.methods.textual_inversion import Learned

SIDE, SHOWN = 1.4, 5  # inches of a picture, pictures of a row
WORD, RANDOM = "<s*>", "a random direction"


def tell_errors(steps: int, errors: Mapping[str, np.ndarray]) -> str:
    """The finding: the error with the learned word, and whether it is below that of the others."""
    own, others = errors[WORD], [word for word in errors if word not in (WORD, RANDOM)]
    sides = [f"{mean_of(own - errors[w]).side} “{w}” ({mean_of(errors[w]).short})" for w in others]
    return f"In {steps} steps {WORD} comes to an error of {mean_of(own)}, {' and '.join(sides)}."


def inversion_sheet(
    rows: Mapping[str, np.ndarray],
    found: "Learned",
    errors: Mapping[str, np.ndarray],
    alike: Mapping[str, np.ndarray],
    title: str,
) -> Figure:
    """What was learned from and what is drawn, row by row; beside it the loss and the likeness.

    rows: 'learned from' and 'others', (n, H, W, 3) uint8; 'drawn' and 'changed', those of each
    word, (words, n, H, W, 3). errors: word → its errors: as which it began, the rival, what was
    learned, and a random direction. alike: word → likenesses; may be empty.
    """
    rows = labelled([*errors], rows)
    columns = min(SHOWN, max(map(len, rows.values())))
    pictures, plots = SIDE * columns + 1.8, 5.2
    height = SIDE * len(rows) + 1.0
    figure = PlainFigure(figsize=(pictures + plots, height), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(pictures, plots))
    draw_rows(left.subplots(len(rows), columns, squeeze=False), rows)
    panels = right.subplots(2 if alike else 1, 1, squeeze=False)[:, 0]
    draw_losses(panels[0], errors, found)
    if alike:
        draw_likeness(panels[1], alike)
    head_line(figure, title)
    return figure


def labelled(words: Sequence[str], rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Label → pictures; of what became of other pictures, the rival's is left out."""
    drawn = {f"drawn:\n“{word}”": some for word, some in zip(words, rows["drawn"], strict=False)}
    changed = {f"turned into\n“{words[i]}”": rows["changed"][i] for i in (0, 2)}
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
        for axes in line[len(images[:SHOWN]) :]:
            axes.set_axis_off()
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9.5)


def draw_losses(axes: Axes, errors: Mapping[str, np.ndarray], found: "Learned") -> None:
    """The mean error of what is learned over the steps, and of each other word."""
    start, rival, word, chance = errors
    labels = {start: ", as which it began", rival: ", the best word near it", chance: " (control)"}
    curve = [mean_of(error) for error in found.curve]
    curve_with_intervals(axes, found.steps, curve, f"“{word}”, as it learns")
    for (name, told), (colour, dashes, _) in zip(labels.items(), STYLES[1:], strict=False):
        said = f"“{name}”" if name != chance else name
        axes.axhline(errors[name].mean(), color=colour, ls=dashes, label=f"{said}{told}")
    axes.set_title("how well it predicts the noise in new pictures", fontsize=10.5)
    axes.set_xlabel("steps of gradient descent")
    axes.set_ylabel("square error of the predicted noise")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.5 * (high - low))  # the legend's room
    axes.legend(fontsize=8.5, frameon=False, loc="upper right")


def draw_likeness(axes: Axes, alike: Mapping[str, np.ndarray]) -> None:
    """A dot for each picture that was drawn, and a word's mean with its interval."""
    learned, *known = STYLES[: len(alike)]  # as in the curves
    for y, (values, style) in enumerate(zip(alike.values(), (*known, learned), strict=True)):
        colour, _, marker = style
        spread = y + np.linspace(-0.1, 0.25, len(values))
        axes.plot(values, spread, marker, color=colour, ms=4, alpha=0.6)
        mean = mean_of(values)
        axes.errorbar(mean.value, y - 0.25, xerr=whiskers([mean]), fmt="|", color=colour, capsize=4)
    axes.set_yticks(range(len(alike)), [f"“{word}”" for word in alike], fontsize=9.5)
    axes.set_ylim(len(alike) - 0.5, -0.5)
    axes.set_title("do its pictures look like it? (above: mean, 95 %)", fontsize=10.5)
    axes.set_xlabel("likeness to the sprite; 1 is the sprite itself")
    axes.grid(axis="x", alpha=0.3)
