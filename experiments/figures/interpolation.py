"""Pictures on the way from one to another: what is told of them, and their figure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import Estimate, mean_of, p_value
from xray.methods.interpolation import (
    MOST,
    Along,
    count_needed,
    largest_of_shuffled_steps,
    needed_of_random_steps,
    parts_of,
)
from xray.plain_figure import PlainFigure
from xray.plots import as_shown, curve_with_intervals, head_line, picture

SIDE = 1.4  # inches, of a picture
BESIDE = 0.007  # of the way, between the whiskers of one curve and another
SURE = 0.05  # the p-value below which a way is not one of random steps
WRONG = "the way does not lead from A to B"


class Panel(NamedTuple):
    """Curves by name, (points, b) each, over x or the shares of B; and a dashed line, (points,) or
    one number, for what would be nothing special."""

    unit: str
    curves: Mapping[str, np.ndarray]
    usual: np.ndarray | float | None = None
    usual_name: str = ""
    x: Sequence[float] | None = None
    across: str = "share of B"


def estimates(along: Along, point: int) -> dict[str, Estimate]:
    """How far a point is from the ends and from the one before, per cent of full scale."""
    far = {"from A": along.from_a, "from B": along.from_b}
    far |= {"from the last": along.from_last} if point else {}
    return {name: mean_of(50 * values[point], "%") for name, values in far.items()}


def steps_of(along: Mapping[str, Along]) -> dict[str, Estimate | float]:
    """For each way, which step is largest on average, and how many make most of the way; and how
    often chance gives as much, and as few."""
    told = {}
    for way, one in along.items():
        parts = parts_of(one)
        step, needed = parts.mean(1).argmax(), count_needed(parts)
        told[f"{way}: step {step + 1}"] = mean_of(100 * parts[step], "%")
        told[f"{way}: p of that"] = p_value(
            parts[step].mean() - 1e-12, largest_of_shuffled_steps(parts)
        )
        told[f"{way}: make most of it"] = mean_of(needed, "steps")
        told[f"{way}: p of so few"] = p_value(-needed.mean(), -needed_of_random_steps(*parts.shape))
    return told


def tell_steps(where: str, along: Mapping[str, Along]) -> str:
    """Whether pictures switch all in one step, or each in a few of its own; of the first way."""
    way = next(iter(along))
    common, p_common, needed, p_needed = steps_of({way: along[way]}).values()
    steps, ways = parts_of(along[way]).shape
    if p_common < SURE:
        return f"{where} pictures switch in one step of {steps}: it makes {common} of the change."
    jumps = "each picture jumps" if p_needed < SURE else "no picture clearly jumps"
    most, usual = f"{100 * MOST:.0f} % of its change", needed_of_random_steps(steps, ways).mean()
    return f"{where} {jumps}: {needed} of {steps} make {most}, of random steps {usual:.1f}."


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
    x = np.asarray(shares if panel.x is None else panel.x)
    for style, (name, values) in enumerate(panel.curves.items()):
        known = [i for i, row in enumerate(values) if not np.isnan(row).any()]
        told = [mean_of(values[i]) for i in known]
        curve_with_intervals(axes, x[known] + BESIDE * np.ptp(x) * style, told, name, style)
    if panel.usual is not None:
        dashed = {"color": "0.4", "lw": 1.2, "ls": (0, (4, 3)), "label": panel.usual_name}
        axes.plot(x, np.broadcast_to(panel.usual, x.shape), **dashed)
    axes.set_ylim(0, None)
    axes.set_xlabel(panel.across)
    axes.set_ylabel(panel.unit)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def distance_panels(along: Mapping[str, Along]) -> list[Panel]:
    """How far the pictures are from A's and B's, and from the one before."""
    steps = {way: 50 * one.from_last for way, one in along.items()}
    even = float(np.mean([np.nanmean(values) for values in steps.values()]))
    ends = {}
    for way, one in along.items():
        ends |= {f"from A, {way}": 50 * one.from_a, f"from B, {way}": 50 * one.from_b}
    unit = "RMS, % of full scale"
    return [
        Panel(f"how far from both ends,\n{unit}", ends),
        Panel(f"how far from the last,\n{unit}", steps, even, "even steps"),
    ]


def jumps_panel(along: Mapping[str, Along]) -> Panel:
    """What part of the change the largest steps make, beside a stick broken at random, whose k-th
    largest of n pieces is (1/k + … + 1/n)/n of it on average."""
    made = {way: -np.sort(-parts_of(one), axis=0) for way, one in along.items()}
    order = np.arange(1, len(next(iter(made.values()))) + 1)
    pieces = np.cumsum(1 / order[::-1])[::-1] / len(order)
    return Panel(
        "part of the change that they make, %",
        {way: 100 * np.cumsum(parts, axis=0) for way, parts in made.items()},
        100 * np.cumsum(pieces),
        "steps at random",
        order,
        "so many of each pair's steps, the largest first",
    )
