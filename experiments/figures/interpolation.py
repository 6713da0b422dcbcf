"""Pictures on the way from one to another → matplotlib Figure. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import standard_error
from xray.methods.interpolation import Along
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, as_shown, picture

SIDE, PANEL = 1.4, 3.0  # inches, of a picture and of a panel


class Panel(NamedTuple):
    """Curves by name, (points, b) each, of which the mean is drawn with its standard error; and,
    where there is one, a dashed line for what would be nothing special."""

    title: str
    unit: str
    curves: Mapping[str, np.ndarray]
    usual: float | None = None
    usual_name: str = ""


def way_sheet(
    images: Mapping[str, np.ndarray], shares: Sequence[float], panels: Sequence[Panel], title: str
) -> Figure:
    """A strip for each way, and curves below.

    images: way → (points, H, W, 3) in [-1, 1]; shares: of B, (points,).
    """
    points = len(shares)
    width = max(SIDE * points + 1, PANEL * len(panels))
    height = 1.65 * len(images) + 3.9
    figure = PlainFigure(figsize=(width, height), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.65 * len(images), 3.3))
    cells = upper.subplots(len(images), points, squeeze=False)
    for row, (way, strip) in zip(cells, images.items(), strict=True):
        row[0].set_ylabel(way, fontsize=11)
        for axes, image, share in zip(row, strip, shares, strict=True):
            picture(axes, as_shown(image))
            ends = {0.0: "A", 1.0: "B"}
            axes.set_xlabel(ends.get(share, f"{share:.3g}"), fontsize=9)
    for axes, panel in zip(lower.subplots(1, len(panels)), panels, strict=True):
        draw_panel(axes, shares, panel)
    lines = [textwrap.fill(line, int(9.5 * width)) for line in title.split("\n")]
    figure.suptitle("\n".join(lines), fontsize=12)
    return figure


def draw_panel(axes: Axes, shares: Sequence[float], panel: Panel) -> None:
    top = 0.0
    for (name, values), (colour, line, marker) in zip(panel.curves.items(), STYLES, strict=False):
        mean, error = values.mean(1), standard_error(values, 1)
        style = {"color": colour, "ls": line, "marker": marker, "ms": 4, "capsize": 2}
        axes.errorbar(shares, mean, error, label=name, **style)
        top = max(top, float(np.nanmax(mean + error)))
    if panel.usual is not None:
        axes.axhline(panel.usual, color="0.4", lw=1, ls=(0, (4, 3)), label=panel.usual_name)
    rows = len(panel.curves) + (panel.usual is not None)
    axes.set_ylim(0, max(top * (1.08 + 0.1 * rows), 1e-6))  # room for the legend
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 1.05 * top])
    axes.set_xlim(-0.04, 1.04)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("share of B")
    axes.set_ylabel(panel.unit)
    axes.legend(fontsize=8, frameon=False, loc="upper center")


def distance_panels(pixels: Mapping[str, Along], latents: Mapping[str, Along]) -> list[Panel]:
    """How far the pictures are from A's and B's, and from the one before. pixels: way → as
    `measure_along` tells of pictures in [-1, 1]; latents: likewise."""
    sets = {
        "pictures": ("RMS, % of full scale", {way: scaled(one, 50) for way, one in pixels.items()}),
        "latents": ("RMS", latents),
    }
    panels = []
    for what, (unit, ways) in sets.items():
        curves = {}
        for way, along in ways.items():
            curves |= {f"from A, {way}": along.from_a, f"from B, {way}": along.from_b}
        panels.append(Panel(f"{what}: how far from both ends", unit, curves))
    unit, ways = sets["pictures"]
    steps = {way: along.from_last for way, along in ways.items()}
    even = float(np.mean([np.nanmean(values) for values in steps.values()]))
    return [*panels, Panel("pictures: how far from the last", unit, steps, even, "even steps")]


def scaled(along: Along, factor: float) -> Along:
    return Along(*(factor * values for values in along))
