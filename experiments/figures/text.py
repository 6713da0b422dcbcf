"""What the text encoder makes of prompts → matplotlib Figures. Nothing here shows or saves."""

import textwrap
from collections.abc import Sequence
from itertools import cycle, groupby
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, SIGNED, head_line

MARKS = (  # colour, marker: told apart by either
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#F0E442", "v"),
    ("#56B4E9", "P"),
    ("#E69F00", "X"),
    ("#999999", "h"),
    ("#000000", "*"),
)


def tokens_sheet(
    tokens: Sequence[str],
    alike: np.ndarray,
    prompts: Sequence[str],
    grown: np.ndarray,
    moves: np.ndarray,
    title: str,
) -> Figure:
    """Which vectors a changed token moves, how alike the tokens' vectors are, and growing prompts.

    tokens: (n) of one prompt, start and end with them, their cosines (n, n); prompts: (k) that
    grow, theirs (k, k); moves: (words, 77), by how much each token's vector moves, as a share of
    its length, when one word is changed, the first of them token 1; 0 where it does not.
    """
    figure = PlainFigure(figsize=(16, 6.4), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    shown = 100 * np.column_stack([moves[:, : len(tokens)], moves[:, len(tokens) :].mean(1)])
    draw_moves(figure, first, shown, tokens)
    drawn = cosine_map(second, alike, tokens)
    second.set_title("how alike are two tokens' vectors?", fontsize=11)
    cosine_map(third, grown, prompts)
    third.set_title("how alike are two prompts, one a part of the other?", fontsize=11)
    third.set_xlabel("the prompt up to this token (its end token's vector)")
    figure.colorbar(drawn, ax=[second, third], label="cosine", location="bottom", shrink=0.4)
    head_line(figure, title)
    return figure


def cosine_map(axes: Axes, cosines: np.ndarray, labels: Sequence[str]) -> object:
    """Cosines (n, n), each row and column by its name."""
    shown = axes.imshow(cosines, cmap=AMOUNT, vmin=min(0, cosines.min()), vmax=1)
    name_cells(axes, labels, labels)
    return shown


def draw_moves(figure: Figure, axes: Axes, moves: np.ndarray, tokens: Sequence[str]) -> None:
    colours = matplotlib.colormaps[AMOUNT].with_extremes(bad="0.85")
    shown = axes.imshow(np.ma.masked_less(moves, 1e-4), cmap=colours, vmin=0)
    name_cells(axes, tokens[1 : len(moves) + 1], [*tokens, "all later, mean"])
    axes.set_title(
        "which vectors does a changed token move?\ngrey: none may, by the causal mask", fontsize=11
    )
    axes.set_ylabel("the token that is changed")
    axes.set_xlabel("the token whose vector is looked at")
    label = "the vector moves by, % of its length"
    figure.colorbar(shown, ax=axes, label=label, location="bottom", shrink=0.8)


def name_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.set_xticks(range(len(columns)), columns, fontsize=9, rotation=90)


# --- families of prompts -----------------------------------------------------------------------


class Cloud(NamedTuple):
    """Prompts as vectors: their family, (n); the cosines of any two, (n, n); two coordinates of
    each, (n, 2), and the share of the variance that each of the two has, (2,)."""

    families: Sequence[str]
    cosines: np.ndarray
    places: np.ndarray
    shares: np.ndarray


class Contrast(NamedTuple):
    """Two prompts' contexts, channel by channel: the tokens of one and of the other, (t), and
    |difference|, (t, channels)."""

    names: tuple[str, str]
    tokens: Sequence[str]
    difference: np.ndarray


def families_sheet(cloud: Cloud, pair: Contrast, title: str) -> Figure:
    """Cosines of prompts ordered by family, the prompts in two dimensions, and two in detail."""
    figure = PlainFigure(figsize=(17, 6.5), layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    shown = first.imshow(cloud.cosines, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto")
    name_groups(first, cloud.families)
    first.set_title("cosine of any two prompts, ordered by family", fontsize=11)
    figure.colorbar(shown, ax=first, label="cosine")
    scatter(second, cloud)
    draw_contrast(figure, third, pair)
    figure.suptitle("\n".join(textwrap.wrap(title, 140)), fontsize=12)
    return figure


def name_groups(axes: Axes, families: Sequence[str]) -> None:
    """A name in the middle of each group of equal neighbours, and lines between them."""
    edges = np.cumsum([0, *(len([*run]) for _, run in groupby(families))])
    names = [name for name, _ in groupby(families)]
    middles = (edges[1:] + edges[:-1] - 1) / 2
    axes.set_yticks(middles, names, fontsize=9)
    axes.set_xticks(middles, names, fontsize=9, rotation=90)
    for edge in edges[1:-1] - 0.5:
        axes.axhline(edge, color="black", lw=0.8)
        axes.axvline(edge, color="black", lw=0.8)


def scatter(axes: Axes, cloud: Cloud) -> None:
    families = np.asarray(cloud.families)
    for name, (colour, marker) in zip(dict.fromkeys(cloud.families), cycle(MARKS), strict=False):
        x, y = cloud.places[families == name].T
        axes.scatter(x, y, 45, color=colour, marker=marker, edgecolor="black", lw=0.4, label=name)
    axes.set_title("the same prompts in two dimensions (PCA)", fontsize=11)
    for i, label in enumerate((axes.set_xlabel, axes.set_ylabel)):
        label(f"component {i + 1}, {100 * cloud.shares[i]:.0f} % of the variance")
    axes.legend(fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.12))


def draw_contrast(figure: Figure, axes: Axes, pair: Contrast) -> None:
    shown = axes.imshow(pair.difference, cmap=AMOUNT, vmin=0, aspect="auto", interpolation="none")
    axes.set_yticks(range(len(pair.tokens)), pair.tokens, fontsize=9)
    axes.set_xlabel("channel of the vector")
    names = " and ".join(f"“{name}”" for name in pair.names)
    axes.set_title("\n".join(textwrap.wrap(f"where {names} differ", 55)), fontsize=11)
    figure.colorbar(shown, ax=axes, label="|difference|")
