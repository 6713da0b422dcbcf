"""What the UNet draws from a text encoder with ablated layers → matplotlib Figure."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.rows import draw_estimates, lay_out, sheet_of_rows, write_cells
from xray.measure import Estimate
from xray.methods.text_layers import all_but_attention, first_layers
from xray.report import Value

SHOWN = 4  # prompts
ROWS = 10  # at most
MOST = 100  # layers of a text encoder
SAID = {  # what is counted, and whether a layer clearly raises it → the finding
    ("things", True): "Things appear with {layer}: stopped after {it}, {told} show them; without "
    "{its}, {without}.",
    ("things", False): "No layer clearly brings the things: stopped after layer {n}, {told} show "
    "them, from embeddings alone {first}.",
    ("cosine", True): "The context changes most in {layer}: stopped after {it}, the cosine with "
    "the whole encoder's is {told}; without {its}, {without}.",
    ("cosine", False): "No layer clearly shapes the context most: stopped after layer {n}, the "
    "cosine with the whole encoder's is {told}.",
}


def tell_layer(rows: Mapping[str, Mapping[str, Value]]) -> tuple[str | None, str]:
    """The layer that brings most of the things, if one clearly does, and the finding; where not all
    were looked into, the layers between two that were."""
    stops = [n for n in range(MOST) if first_layers(n) in rows]
    what = "things" if "things" in rows[first_layers(0)] else "cosine"
    got: Sequence[Estimate] = [rows[first_layers(n)][what] for n in stops]
    i = max(range(1, len(got)), key=lambda i: got[i].value - got[i - 1].value)
    before, n, clear = stops[i - 1], stops[i], got[i].low > got[i - 1].high
    one = n == before + 1
    layer = f"layer {n}" if one else f"layers {before + 1} to {n}"
    it, its = ("it", "its attention") if one else (f"{n}", "attention there")
    told = got[i].of("pictures") if what == "things" else got[i]
    without = rows[all_but_attention(n)][what].short
    told = {"told": told, "without": without, "first": got[0].short}
    said = SAID[what, clear].format(n=n, layer=layer, it=it, its=its, **told)
    return layer if clear else None, said


def sheet(
    images: np.ndarray,
    prompts: Sequence[str],
    table: Sequence[Mapping[str, str | Estimate]],
    title: str,
) -> Figure:
    """A row for what acts: pictures, what they show, and how near the whole encoder's the context
    is; of many rows, some.

    images: (rows, n, H, W, 3) uint8; prompts: of the n; table: a row for each.
    """
    at = np.linspace(0, len(table) - 1, min(ROWS, len(table))).round().astype(int)
    rows = [table[i] for i in at]
    what, *judged, cosine = table[0]
    names = [textwrap.fill(row[what], 16) for row in rows]
    shown = images[at, :SHOWN]
    figure, cells, panels = sheet_of_rows(shown, names, 1 + bool(judged), f"{what}:", title)
    for axes, prompt in zip(cells[0], prompts, strict=False):
        axes.set_title(textwrap.fill(prompt, 21), fontsize=8)
    draw_estimates(panels[-1], [row[cosine] for row in rows])
    lay_out(panels[-1], len(rows), "cosine with the whole encoder's", "context")
    panels[-1].set_xlim(0, 1.1)
    if judged:
        write_cells(panels[0], rows, judged)
    return figure
