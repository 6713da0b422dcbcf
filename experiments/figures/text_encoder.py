"""What the text encoder makes of prompts → matplotlib Figures. Nothing here shows or saves."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, head_line


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
    the longest's length, when one word is changed, the first of them token 1; 0 where it does not.
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
    label = "the vector moves by, % of the longest's length"
    figure.colorbar(shown, ax=axes, label=label, location="bottom", shrink=0.8)


def name_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.set_xticks(range(len(columns)), columns, fontsize=9, rotation=90)
