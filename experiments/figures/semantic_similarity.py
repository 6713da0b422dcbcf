"""Families of prompts as vectors → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Sequence
from itertools import cycle, groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import cosines, principal_components
from xray.methods.causal_mask import moved
from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, FILLS, head_line

MOST = 20  # tokens of two prompts in detail
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


def families_sheet(
    families: Sequence[str],
    ends: np.ndarray,
    pair: Sequence[str],
    tokens: Sequence[Sequence[str]],
    contexts: np.ndarray,
    title: str,
) -> Figure:
    """Cosines of prompts ordered by family, the prompts in two dimensions, and two in detail.

    families: of each prompt, (n); ends: their vectors, (n, width); pair: two prompts; tokens: their
    77 names; contexts: (2, 77, width).
    """
    figure = PlainFigure(figsize=(17, 6.5), layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=(1.25, 1, 0.9))
    shown = first.imshow(cosines(ends), cmap=AMOUNT, vmin=0, vmax=1, aspect="auto")
    name_groups(first, families)
    first.set_title("cosine of any two prompts, ordered by family", fontsize=11)
    figure.colorbar(shown, ax=first, label="cosine", extend="min")
    scatter(second, np.asarray(families), *principal_components(ends))
    draw_contrast(third, tokens, contexts)
    both = "\nand ".join(f"“{prompt}”" for prompt in pair)
    third.set_title(f"where {both} differ", fontsize=11)
    head_line(figure, title)
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


def scatter(axes: Axes, families: np.ndarray, places: np.ndarray, shares: np.ndarray) -> None:
    """Prompts at their places (n, 2), every other family by smaller markers, which show on top of
    others; shares: of the variance, (2,)."""
    looks = zip(cycle(MARKS), cycle((110, 35)), strict=False)
    for name, ((colour, marker), size) in zip(dict.fromkeys(families), looks, strict=False):
        x, y = places[families == name].T
        axes.scatter(x, y, size, color=colour, marker=marker, edgecolor="black", lw=0.6, label=name)
    axes.set_title("the same prompts in two dimensions (PCA)", fontsize=11)
    for i, label in enumerate((axes.set_xlabel, axes.set_ylabel)):
        label(f"component {i + 1}, {100 * shares[i]:.0f} % of the variance")
    axes.legend(fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.12))


def draw_contrast(axes: Axes, tokens: Sequence[Sequence[str]], contexts: np.ndarray) -> None:
    """How far two prompts' vectors are apart, a bar for each token up to their ends, from the first
    down, and for the padding."""
    last = min(MOST, max(some.index("end") for some in tokens) + 1)
    apart = 100 * moved(contexts[:1], contexts[1:])[0]
    pairs = zip(*tokens, strict=True)
    names = [one if one == other else f"{one} / {other}" for one, other in pairs][:last]
    rest = apart[last:]
    bars = {"padding, mean": rest.mean(), "the last of it": rest[-1]} if rest.size else {}
    values = [*apart[:last], *bars.values()]
    places = np.arange(len(values))
    axes.barh(places, values, 0.7, color=FILLS[0][0])
    for place, value in zip(places, values, strict=True):
        axes.text(value, place, f" {value:.3g}", va="center", fontsize=9)
    axes.set_yticks(places, [*names, *bars], fontsize=9)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * max(*values, 1))
    axes.set_xlabel("the two vectors are apart by, % of the longest's length")
