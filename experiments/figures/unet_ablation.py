"""What each ablation costs: blocks as bars, heads as a map, pictures."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import Estimate
from xray.methods.ablation import Ablation
from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, FILLS, head_line, picture, whiskers, write_into

SHOWN = 7  # ablations whose pictures are shown

Table = Sequence[Mapping[str, Any]]


def ablation_sheet(
    ablations: Sequence[Ablation],
    table: Table,
    usual: Estimate,
    images: np.ndarray,
    title: str,
) -> Figure:
    """What each ablation changes: blocks as bars with what is lost under them, heads as a map, and
    the pictures that moved farthest.

    table: a row for each ablation. usual: how far another noise's picture is. images: untouched,
    then one for each ablation, (1 + ablations, H, W, 3) uint8, all of one noise.
    """
    blocks = [i for i, one in enumerate(ablations) if one.head is None]
    heads = [i for i, one in enumerate(ablations) if one.head is not None]
    lost = [name for name in table[0] if name not in ("ablated", "moved")]
    figure = PlainFigure(figsize=(13, 9.6 + 0.2 * len(lost)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(5 + 0.2 * len(lost), 4))
    ratios = (5, 0.4 * len(lost)) if lost else (5,)
    bars, *counts = upper.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    if blocks:
        draw_bars(bars, [ablations[i] for i in blocks], [table[i] for i in blocks], usual)
    for axes in counts if blocks else ():
        draw_counts(axes, [table[i] for i in blocks], lost)
        bars.set_xticks([])
    last = counts[-1] if counts else bars
    last.set_xticks(
        range(len(blocks)), [ablations[i].place for i in blocks], rotation=90, fontsize=8
    )
    last.set_xlabel("block ablated, in order of execution")
    left, right = lower.subfigures(1, 2, width_ratios=(3, 5))
    if heads:
        layers = list(dict.fromkeys(ablations[i].place for i in heads))
        moved = np.array([table[i]["moved"].value for i in heads]).reshape(len(layers), -1)
        draw_heads(left, layers, moved)
    worst = sorted(range(len(ablations)), key=lambda i: -table[i]["moved"].value)[:SHOWN]
    shown = {"untouched": images[0]} | {str(ablations[i]): images[1 + i] for i in worst}
    cells = right.subplots(2, -(-len(shown) // 2), squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, (name, image) in zip(cells, shown.items(), strict=False):
        axes.set_axis_on()
        picture(axes, image)
        axes.set_xlabel(name.replace(", ", "\n"), fontsize=8)
    head_line(figure, title)
    return figure


def draw_bars(axes: Axes, blocks: Sequence[Ablation], table: Table, usual: Estimate) -> None:
    """How far pictures move, a colour for each kind of block."""
    kinds = np.array([one.kind for one in blocks])
    moved = [row["moved"] for row in table]
    reach, values = whiskers(moved), np.array([one.value for one in moved])
    for kind, (colour, hatch) in zip(dict.fromkeys(kinds), cycle(FILLS), strict=False):
        here = np.flatnonzero(kinds == kind)
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "ecolor": "0.15"}
        axes.bar(here, values[here], 0.8, yerr=reach[:, here], capsize=2, label=kind, **look)
    axes.axhline(usual.value, color="0.3", lw=1, ls="--", label="another noise")
    axes.set_xlim(-0.6, len(blocks) - 0.4)
    axes.set_ylim(0, None)
    axes.set_ylabel("pictures move,\nRMS, % of full scale")
    axes.legend(fontsize=8, frameon=False, ncols=6, loc="lower left", bbox_to_anchor=(0, 1))


def draw_counts(axes: Axes, table: Table, lost: Sequence[str]) -> None:
    """How many pictures lost what, under the bars; 0 is left blank."""
    shares = np.array([[row[name].value for row in table] for name in lost])
    axes.imshow(shares, "Reds", vmin=0, vmax=1.3, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        count = round(share * table[column][lost[row]].n)
        axes.text(column, row, count or "", ha="center", va="center", fontsize=8)
    names = [f"{name} (of {table[0][name].n})" for name in lost]
    axes.set_yticks(range(len(lost)), names, fontsize=8)
    axes.set_xlim(-0.6, len(table) - 0.4)


def draw_heads(figure: Figure, layers: Sequence[str], heads: np.ndarray) -> None:
    axes = figure.subplots()
    shown = axes.imshow(heads, cmap=AMOUNT, vmin=0, aspect="auto")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.set_xticks(range(heads.shape[1]))
    axes.set_xlabel("head of the cross-attention")
    if heads.size <= 160:
        write_into(axes, heads)
    figure.colorbar(shown, ax=axes, label="pictures move, RMS, % of full scale")
