"""Pictures on the way from one to another: what is told of them, and their figure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import Estimate, mean_of, p_value
from xray.methods.interpolation import (
    Along,
    largest_of_random_steps,
    largest_of_shuffled_steps,
)
from xray.plain_figure import PlainFigure
from xray.plots import as_shown, curve_with_intervals, head_line, picture

SIDE = 1.4  # inches, of a picture
SURE = 0.05  # the p-value below which a way is not one of random steps
WRONG = "the way does not lead from A to B"


class Panel(NamedTuple):
    """Curves by name, (points, b) each, and a dashed line for what would be nothing special."""

    unit: str
    curves: Mapping[str, np.ndarray]
    usual: float | None = None
    usual_name: str = ""


def estimates(along: Along, point: int) -> dict[str, Estimate]:
    """How far a point is from the ends and from the one before, per cent of full scale."""
    far = {"from A": along.from_a, "from B": along.from_b}
    far |= {"from the last": along.from_last} if point else {}
    return {name: mean_of(50 * values[point], "%") for name, values in far.items()}


def largest_steps(along: Mapping[str, Along]) -> dict[str, Estimate | float]:
    """The part of the whole that each way's largest step makes, and that step which is largest on
    average; and how often chance gives as much."""
    told = {}
    for way, one in along.items():
        parts = one.from_last[1:] / one.from_last[1:].sum(0)  # (steps, b)
        own, common = parts.max(0), parts[parts.mean(1).argmax()]
        told[f"{way}: its largest step"] = mean_of(100 * own, "%")
        told[f"{way}: p"] = p_value(own.mean(), largest_of_random_steps(*parts.shape))
        told[f"{way}: step {parts.mean(1).argmax() + 1}"] = mean_of(100 * common, "%")
        told[f"{way}: p of that"] = p_value(common.mean(), largest_of_shuffled_steps(parts))
    return told


def tell_largest(where: str, along: Mapping[str, Along]) -> str:
    """Whether pictures switch, all in one step or each in its own; told of the first way."""
    way = next(iter(along))
    own, p_own, common, p_common = list(largest_steps({way: along[way]}).values())
    steps = len(along[way].from_last) - 1
    if p_common < SURE:
        return f"{where} pictures switch in one step of {steps}: it makes {common} of the change."
    if p_own < SURE:
        return f"{where} each picture switches in its own step of {steps}: {own} of the change."
    return f"{where} no picture surely switches: the largest of {steps} steps makes {own} of it."


def way_sheet(
    images: Mapping[str, np.ndarray], shares: Sequence[float], panels: Sequence[Panel], title: str
) -> Figure:
    """A strip for each way, and curves below.

    images: way → (points, H, W, 3) in [-1, 1]; shares: of B, (points,).
    """
    points = len(shares)
    height = 1.65 * len(images) + 4.2
    figure = PlainFigure(figsize=(max(SIDE * points + 1, 9), height), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.65 * len(images), 3.6))
    grid = upper.subplots(len(images), points, squeeze=False)
    for row, (way, strip) in zip(grid, images.items(), strict=True):
        row[0].set_ylabel(way, fontsize=11)
        for axes, image, share in zip(row, strip, shares, strict=True):
            picture(axes, as_shown(image))
            axes.set_xlabel({0.0: "A", 1.0: "B"}.get(share, f"{share:.3g}"), fontsize=9)
    for axes, panel in zip(lower.subplots(1, len(panels)), panels, strict=True):
        draw_panel(axes, shares, panel)
    head_line(figure, title)
    return figure


def draw_panel(axes: Axes, shares: Sequence[float], panel: Panel) -> None:
    for style, (name, values) in enumerate(panel.curves.items()):
        known = [i for i, row in enumerate(values) if not np.isnan(row).any()]
        told = [mean_of(values[i]) for i in known]
        curve_with_intervals(axes, [shares[i] for i in known], told, name, style)
    if panel.usual is not None:
        axes.axhline(panel.usual, color="0.4", lw=1, ls=(0, (4, 3)), label=panel.usual_name)
    axes.set_ylim(0, None)
    axes.set_xlim(-0.04, 1.04)
    axes.set_xlabel("share of B")
    axes.set_ylabel(panel.unit)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def distance_panels(along: Mapping[str, Along]) -> list[Panel]:
    """How far the pictures are from A's and B's, and from the one before."""
    ends = {}
    for way, one in along.items():
        ends |= {f"from A, {way}": 50 * one.from_a, f"from B, {way}": 50 * one.from_b}
    steps = {way: 50 * one.from_last for way, one in along.items()}
    even = float(np.mean([np.nanmean(values) for values in steps.values()]))
    unit = "RMS, % of full scale"
    return [
        Panel(f"how far from both ends,\n{unit}", ends),
        Panel(f"how far from the last,\n{unit}", steps, even, "even steps"),
    ]
