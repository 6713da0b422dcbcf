"""What swapped timesteps and prompts do → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, head_line, picture, write_into

Row = Mapping[str, Any]


def swap_sheet(
    images: np.ndarray, shown: Sequence[Row | None], table: Sequence[Row], title: str
) -> Figure:
    """Pictures (n, H, W, 3) uint8, each with its row of the table, None being nothing swapped; and
    how far the latent moves, as a map over blocks and steps."""
    figure = PlainFigure(figsize=(13, 7), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    for axes, image, row in zip(
        np.ravel(upper.subplots(1, len(images))), images, shown, strict=True
    ):
        picture(axes, image)
        axes.set_title(title_of(row), fontsize=10)
        axes.set_xlabel(counts_of(row), fontsize=9)
    kinds = list(dict.fromkeys(row["swapped"] for row in table))
    places = list(dict.fromkeys(row["where"] for row in table))
    moved = np.array([row["moved"].value for row in table]).reshape(len(kinds), len(places))
    axes = lower.subplots()
    drawn = axes.imshow(moved, cmap=AMOUNT, vmin=0, aspect="auto")
    write_into(axes, moved)
    axes.set_xticks(range(len(places)), [place.replace(" block ", "\nblock ") for place in places])
    axes.tick_params(labelsize=9)
    axes.set_yticks(range(len(kinds)), kinds, fontsize=9)
    first = next(i for i, place in enumerate(places) if place.startswith("step"))
    for edge in (0.5, first - 0.5):
        axes.axvline(edge, color="white", lw=4)
    axes.set_title("how far the latent moves: everywhere, in one block, in one step", fontsize=10)
    lower.colorbar(drawn, ax=axes, label="% of the distance\nbetween two seeds")
    head_line(figure, title)
    return figure


def title_of(row: Row | None) -> str:
    if row is None:
        return "nothing swapped"
    return f"{row['swapped']}\n{'everywhere' if row['where'] == 'all' else 'in ' + row['where']}"


def counts_of(row: Row | None) -> str:
    """How many pictures show what each prompt asks for."""
    told = [f"{row[name].short} {name}" for name in ("as A", "as B") if row and name in row]
    return "\n".join(told)
