"""What swapped times and words do → matplotlib Figure. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.methods.conditioning import Fit
from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, STYLES, picture, write_into


class Moved(NamedTuple):
    """How far latents move: kind → (places, pictures) in per cent, and (steps, pictures)."""

    places: Sequence[str]  # 'all', and each block alone
    by_place: Mapping[str, np.ndarray]
    by_step: Mapping[str, np.ndarray]


def swap_sheet(
    images: np.ndarray,
    labels: Sequence[str],
    moved: Moved,
    fits: Mapping[str, Mapping[str, Fit]],
    title: str,
) -> Figure:
    """Pictures (n, H, W, 3) uint8, a label under each; what moves, as maps; and channels as dots.

    fits: block → kind → how its features change.
    """
    figure = PlainFigure(figsize=(13, 10.6), layout="constrained")
    upper, middle, lower = figure.subfigures(3, 1, height_ratios=(1.1, 1, 1.35))
    for axes, image, label in zip(
        np.ravel(upper.subplots(1, len(images))), images, labels, strict=True
    ):
        picture(axes, image)
        axes.set_xlabel(label, fontsize=9)
    draw_maps(*middle.subplots(1, 2, width_ratios=(len(moved.places), steps_of(moved))), moved)
    for axes, (block, kinds) in zip(
        np.ravel(lower.subplots(1, len(fits))), fits.items(), strict=True
    ):
        draw_channels(axes, kinds)
        axes.set_title(f"{named(block, ' ')}: a dot for each channel", fontsize=10)
    figure.suptitle("\n".join(textwrap.wrap(title, 125)), fontsize=11)
    return figure


def steps_of(moved: Moved) -> int:
    return len(next(iter(moved.by_step.values())))


def draw_maps(left: Axes, right: Axes, moved: Moved) -> None:
    """Means over pictures; both maps in the same colours."""
    maps = [
        np.stack([rows.mean(1) for rows in m.values()]) for m in (moved.by_place, moved.by_step)
    ]
    most = max(values.max() for values in maps)
    names = [named(place) for place in moved.places], range(1, 1 + steps_of(moved))
    for axes, values, ticks in zip((left, right), maps, names, strict=True):
        shown = axes.imshow(values, cmap=AMOUNT, vmin=0, vmax=most, aspect="auto")
        axes.set_xticks(range(values.shape[1]), ticks, fontsize=9)
        axes.set_yticks(range(len(values)), [*moved.by_place], fontsize=9)
        write_into(axes, values)
    right.set_yticks([])
    right.set_xlabel("step, from noise to picture")
    left.set_title("where it is heard, in all steps: how far the latent moves, %", fontsize=10)
    right.set_title("in which step, everywhere, %", fontsize=10)
    right.figure.colorbar(shown, ax=right, label="% of the distance\nbetween two seeds")


def draw_channels(axes: Axes, kinds: Mapping[str, Fit]) -> None:
    for (kind, fit), (colour, _, marker) in zip(kinds.items(), STYLES, strict=False):
        label = f"{kind}: {100 * fit.explained:.0f} % of the change explained"
        axes.plot(
            fit.offset, fit.scale, marker, color=colour, ms=4, mfc="none", ls="none", label=label
        )
    axes.axhline(1, color="0.6", lw=0.8)
    axes.axvline(0, color="0.6", lw=0.8)
    axes.set_xlabel("offset, in deviations of the channel")
    axes.set_ylabel("scale")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)


def named(block: str, gap: str = "\n") -> str:
    """'up block 1' of 'up_blocks.1'."""
    return block.replace("_blocks.", f" block{gap}").replace("mid_", f"mid{gap}")
