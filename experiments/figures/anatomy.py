"""The anatomy of a model → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from xray.plain_figure import PlainFigure
from xray.plots import FILLS, head_line

if TYPE_CHECKING:
    from xray.methods.anatomy import Block

ATTENDS = {"facecolor": "#E69F00", "hatch": "//"}
PLAIN = {"facecolor": "#56B4E9", "hatch": ""}
WIDE, THIN = 1.7, 0.07  # inches of the widest box, and the least that is still seen
LEVELS = ("down_blocks", "mid_block", "up_blocks", "layers", "embeddings")  # what gets a box
FONT = 8.5
SAID = 9.0  # %; a piece of a bar that is shorter has no room for its number
ARROW = {"arrowstyle": "-|>", "color": "0.25", "lw": 1.1}
SKIP = {"arrowstyle": "-|>", "color": "0.45", "lw": 1.1, "ls": "--"}


def anatomy_sheet(
    rows: Sequence["Block"], shares: Mapping[str, Mapping[str, float]], title: str
) -> Figure:
    """The four networks of a model as boxes, as wide as their channels and as high as their grid.

    shares: what is shared out → part → its share, summing to 1.
    """
    figure = PlainFigure(figsize=(15, 11.2))
    panels = {  # part: left, bottom, width, height in inches
        "text_encoder": (0.2, 4.0, 3.9, 6.1),
        "unet": (4.3, 4.0, 10.5, 6.1),
        "encoder": (0.2, 0.2, 5.2, 3.4),
        "decoder": (5.6, 0.2, 5.2, 3.4),
    }
    draw = {"text_encoder": draw_stack, "unet": draw_u}
    for part, (left, bottom, width, height) in panels.items():
        axes = panel(figure, left, bottom, width, height)
        mine = [row for row in rows if row.part == part]
        axes.set_title(headline(part, mine), fontsize=10.5, loc="left", weight="bold")
        draw.get(part, draw_row)(axes, mine, width, height)
    draw_shares(figure.add_axes((11.6 / 15, 1.15 / 11.2, 3.1 / 15, 2.1 / 11.2)), shares)
    draw_key(figure, (4.3 / 15, 4.0 / 11.2))
    head_line(figure, title)
    return figure


KEY = {"with attention": ATTENDS, "convolutions or tables only": PLAIN}
KEY_TITLE = """A box is a block: as wide as its channels
are many, as high as its grid has rows.
Beside it: grid × channels, parameters,
billions of multiply-accumulates (GMAC)"""


def draw_key(figure: Figure, corner: tuple[float, float]) -> None:
    """What the boxes mean, from a corner (lower left, as a share of the figure)."""
    boxes = [Patch(ec="0.2", label=told, **style) for told, style in KEY.items()]
    figure.legend(
        handles=boxes,
        title=KEY_TITLE,
        loc="lower left",
        bbox_to_anchor=corner,
        fontsize=FONT,
        title_fontsize=FONT,
        alignment="left",
        frameon=False,
    )


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes whose units are inches, without a frame."""
    w, h = figure.get_size_inches()
    axes = figure.add_axes((left / w, bottom / h, width / w, height / h))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return axes


def headline(part: str, rows: Sequence["Block"]) -> str:
    parameters = sum(row.parameters for row in rows)
    gmacs = sum(row.gmacs for row in rows)
    name = {"unet": "UNet, one call"}.get(part, part.replace("_", " "))
    return f"{name}: {amount(parameters)} parameters, {billions(gmacs)} GMAC"


def amount(parameters: int) -> str:
    """'860 M', '11.8 k'."""
    unit, letter = (1e6, "M") if parameters >= 1e5 else (1e3, "k")
    return f"{parameters / unit:.3g} {letter}"


def billions(gmacs: float) -> str:
    """'1,257', '6.6', '0.033'."""
    return f"{gmacs:,.0f}" if gmacs >= 100 else f"{gmacs:.2g}"


def label(row: "Block") -> str:
    shape = "×".join(map(str, row.shape))
    name = row.name.replace("_blocks.", " ").replace("_block", "")
    return f"{name}: {shape}\n{amount(row.parameters)}, {billions(row.gmacs)} GMAC"


def boxed(rows: Sequence["Block"]) -> list["Block"]:
    return [row for row in rows if row.name.split(".")[0] in LEVELS]


def sizes(rows: Sequence["Block"], wide: float, high: float) -> dict["Block", tuple[float, float]]:
    """Name → width ∝ channels, height ∝ grid, the largest as told."""
    channels, grid = (max(row.shape[i] for row in rows) for i in (-1, 0))
    return {
        row.name: (
            max(THIN, wide * row.shape[-1] / channels),
            max(THIN, high * row.shape[0] / grid),
        )
        for row in rows
    }


def box(axes: Axes, x: float, y: float, size: tuple[float, float], row: "Block") -> None:
    """A box around the point (x, y)."""
    width, height = size
    style = ATTENDS if row.attends else PLAIN
    corner = x - width / 2, y - height / 2
    axes.add_patch(Rectangle(corner, width, height, ec="0.2", lw=0.9, **style))


def arrow(axes: Axes, start: tuple, stop: tuple, style: Mapping = ARROW) -> None:
    axes.annotate("", stop, start, arrowprops=dict(style))


# --- the UNet ----------------------------------------------------------------------------------


def draw_u(axes: Axes, rows: Sequence["Block"], width: float, height: float) -> None:
    """Down on the left, up on the right, the middle below, what is skipped across."""
    by_name = {row.name: row for row in boxed(rows)}
    down = [row for name, row in by_name.items() if name.startswith("down")]
    up = [row for name, row in by_name.items() if name.startswith("up")][::-1]
    pitch = (height - 0.5) / (len(down) + 0.8)
    size = sizes([*by_name.values()], WIDE, 0.74 * pitch)
    left, right, middle = 0.32 * width, 0.68 * width, width / 2
    levels = [height - 0.5 - pitch * (i + 0.5) for i in range(len(down))]
    for i, (y, a, b) in enumerate(zip(levels, down, up, strict=True)):
        box(axes, left, y, size[a.name], a)
        box(axes, right, y, size[b.name], b)
        axes.text(left - WIDE / 2 - 0.1, y, label(a), ha="right", va="center", fontsize=FONT)
        axes.text(right + WIDE / 2 + 0.1, y, label(b), ha="left", va="center", fontsize=FONT)
        across = left + size[a.name][0] / 2, right - size[b.name][0] / 2
        arrow(axes, (across[0] + 0.04, y), (across[1] - 0.04, y), SKIP)
        axes.text(middle, y + 0.05, "skips", ha="center", fontsize=FONT, color="0.3")
        if i:
            gap = size[down[i - 1].name][1] / 2, size[a.name][1] / 2
            arrow(axes, (left, levels[i - 1] - gap[0]), (left, y + gap[1]))
            arrow(axes, (right, y + gap[1]), (right, levels[i - 1] - gap[0]))
    edges = levels[-1] - size[down[-1].name][1] / 2, levels[-1] - 0.85 * pitch
    draw_bottom(axes, by_name.get("mid_block"), size, (left, middle, right), *edges)
    draw_ends(axes, rows, (left, middle, right), height, levels[0], 0.37 * pitch)


def draw_bottom(
    axes: Axes, mid: "Block | None", size: Mapping, columns: tuple, above: float, y: float
) -> None:
    """The middle at height y, and the way to it from under the lowest boxes and back."""
    left, middle, right = columns
    if mid is None:  # some distillations have none
        arrow(axes, (left, above), (right, above))
        return
    box(axes, middle, y, size[mid.name], mid)
    half = size[mid.name][0] / 2
    bent = {**ARROW, "connectionstyle": "angle,angleA=90,angleB=0"}
    arrow(axes, (left, above), (middle - half, y), bent)
    bent["connectionstyle"] = "angle,angleA=0,angleB=90"
    arrow(axes, (middle + half, y), (right, above), bent)
    under = y - size[mid.name][1] / 2 - 0.05
    axes.text(middle, under, label(mid), ha="center", va="top", fontsize=FONT)


def draw_ends(
    axes: Axes, rows: Sequence["Block"], columns: tuple, height: float, y: float, half: float
) -> None:
    """What goes in, what comes out, and the timestep."""
    named = {row.name: row for row in rows}
    left, middle, right = columns
    top = height - 0.15
    for x, name, told, ends in (
        (left, "conv_in", "latent → conv_in", (top - 0.1, y + half)),
        (right, "conv_out", "conv_out → noise", (y + half, top - 0.1)),
    ):
        text = f"{told} ({amount(named[name].parameters)})"
        axes.text(x, top, text, ha="center", va="center", fontsize=FONT)
        arrow(axes, (x, ends[0]), (x, ends[1]))
    time = f"timestep ({amount(named['time_embedding'].parameters)})\n→ every residual block"
    axes.text(middle, top, time, ha="center", va="center", fontsize=FONT, color="0.3")


# --- the others --------------------------------------------------------------------------------


def draw_stack(axes: Axes, rows: Sequence["Block"], width: float, height: float) -> None:
    """The text encoder from the top: its tokens' table, its layers, equal ones told together."""
    stack = boxed(rows)
    pitch = min(0.8, (height - 1.2) / len(stack))
    size = sizes(stack, WIDE, 0.72 * pitch)
    x, y = 0.1 + WIDE / 2, height - 0.45
    axes.text(x, y + 0.3, "tokens", ha="center", va="center", fontsize=FONT)
    arrow(axes, (x, y + 0.2), (x, y))
    for _, group in groupby(stack, lambda row: (row.parameters, row.macs, row.shape)):
        same = list(group)
        for i, row in enumerate(same):
            box(axes, x, y - pitch * (i + 0.5), size[row.name], row)
        told = label(same[0])
        if len(same) > 1:
            told = f"{len(same)} layers, each:\n{told.split(': ', 1)[1]}"
        centre = y - pitch * len(same) / 2
        axes.text(0.25 + WIDE, centre, told, va="center", fontsize=FONT)
        y -= pitch * len(same)
    arrow(axes, (x, y), (x, y - 0.25))
    told = "context: keys and values of\nthe UNet's cross-attention"
    axes.text(x, y - 0.3, told, ha="center", va="top", fontsize=FONT)


def draw_row(axes: Axes, rows: Sequence["Block"], width: float, height: float) -> None:
    """An image encoder or decoder, from left to right."""
    chain = boxed(rows)
    pitch = width / len(chain)
    size = sizes(chain, 0.8 * pitch, height - 1.1)
    y = 0.75 + (height - 1.1) / 2
    for i, row in enumerate(chain):
        x = pitch * (i + 0.5)
        box(axes, x, y, size[row.name], row)
        told = label(row).replace(": ", "\n").replace(", ", "\n")
        axes.text(x, 0.68, told, ha="center", va="top", fontsize=FONT)
        if i:
            before = x - pitch + size[chain[i - 1].name][0] / 2
            arrow(axes, (before, y), (x - size[row.name][0] / 2, y))


def draw_shares(axes: Axes, shares: Mapping[str, Mapping[str, float]]) -> None:
    """A bar for each thing that is shared out, a piece for each part."""
    parts = list(next(iter(shares.values())))
    start = dict.fromkeys(shares, 0.0)
    for part, (colour, hatch) in zip(parts, (FILLS[0], *FILLS[2:]), strict=True):
        told = part.replace("_", " ").replace("unet", "UNet")
        for y, (name, shared) in enumerate(shares.items()):
            length, label = 100 * shared[part], told if y == 0 else None
            style = {"color": colour, "hatch": hatch, "ec": "white", "label": label}
            axes.barh(y, length, 0.55, start[name], **style)
            if length >= SAID:
                middle = start[name] + length / 2
                plate = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                at = {"ha": "center", "va": "center", "fontsize": FONT, "bbox": plate}
                axes.text(middle, y, f"{length:.0f} %", **at)
            start[name] += length
    axes.set_yticks(range(len(shares)), list(shares), fontsize=9)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of all", fontsize=9)
    axes.set_title("who holds the parameters, who works", fontsize=10.5, weight="bold", x=0.35)
    below = {"loc": "upper center", "bbox_to_anchor": (0.35, -0.22)}
    axes.legend(fontsize=FONT, frameon=False, ncols=2, **below)
    axes.spines[["top", "right"]].set_visible(False)
