"""Pictures walked to noise and back again → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure
from xray.plots import (
    STYLES,
    as_shown,
    bars_with_intervals,
    curve_with_intervals,
    head_line,
    picture,
)

ROWS = 2  # pictures that are shown
REACH = 4.0  # standard deviations of true noise to either side that are drawn

Ends = Mapping[tuple[str, int], tuple[np.ndarray | None, np.ndarray]]


def inversion_sheet(
    images: np.ndarray,
    ends: Ends,
    shown: tuple[str, str],
    last: int,
    table: Sequence[Mapping[str, Any]],
    title: str,
) -> Figure:
    """Pictures, their noise and what came back; PSNR over the steps, and how Gaussian the noise is.

    images: (n, H, W, 3) in [-1, 1]; ends: (what was walked, steps) → the noise found, and what was
    drawn from it; shown: two of what was walked, seen at `last` steps.
    """
    columns = {"the picture": images, "encoded, decoded": ends["encoded", last][1]}
    for name in shown:
        columns[f"noise found,\n{name}"] = ends[name, last][0][..., :3] / REACH
        columns[f"drawn from it,\n{name}"] = ends[name, last][1]
    columns["control: drawn\nfrom fresh noise"] = ends["fresh noise", last][1]
    rows = min(ROWS, len(images))
    figure = PlainFigure(figsize=(1.75 * len(columns), 1.75 * rows + 5), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.75 * rows + 0.4, 4))
    grid = upper.subplots(rows, len(columns), squeeze=False).T
    for column, (name, some) in zip(grid, columns.items(), strict=True):
        column[0].set_title(name, fontsize=10)
        for axes, image in zip(column, some, strict=False):
            picture(axes, as_shown(image))
    curves, densities, neighbours = lower.subplots(1, 3, width_ratios=(1.3, 1.2, 1))
    draw_curves(curves, table)
    draw_densities(densities, {name: ends[name, last][0] for name in shown})
    found = [row for row in table if "neighbours correlate" in row]
    names, values = [row["noise"] for row in found], [row["neighbours correlate"] for row in found]
    bars_with_intervals(neighbours, names, values)
    neighbours.set_title("spatially correlated?", fontsize=10)
    neighbours.set_xlabel("correlation of neighbours")
    head_line(figure, title)
    return figure


def draw_curves(axes: Axes, table: Sequence[Mapping[str, Any]]) -> None:
    """PSNR over the steps, a curve for each guidance, a line for what was walked once."""
    steps = [int(name.split()[0]) for name in table[0] if name.endswith(" steps")]
    for style, row in enumerate(table):
        psnr = [row[f"{n} steps"] for n in steps if f"{n} steps" in row]
        if row["noise"].startswith("guidance"):
            curve_with_intervals(axes, steps, psnr, row["noise"], style)
            continue
        axes.axhline(psnr[0].value, color="0.35", lw=1, ls=(0, (4, 2)))
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(row["noise"], (0, psnr[0].value), (4, 3), fontsize=9, **place)
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()
    axes.set_xlabel("steps there, and as many back")
    axes.set_ylabel("PSNR of what came back, dB")
    axes.legend(fontsize=9, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def draw_densities(axes: Axes, noises: Mapping[str, np.ndarray]) -> None:
    """The values of the noise that was found, beside the Gaussian that it should have."""
    edges = np.linspace(-REACH, REACH, 61)
    gaussian = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    axes.fill_between(edges, gaussian, color="0.85", label="Gaussian")
    for (name, noise), (colour, line, _) in zip(noises.items(), STYLES, strict=False):
        density, _ = np.histogram(noise, edges)
        density = density / (noise.size * (edges[1] - edges[0]))
        label = f"{name}: standard deviation {noise.std():.2f}"
        axes.plot((edges[1:] + edges[:-1]) / 2, density, line, color=colour, label=label)
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
    axes.set_xlabel("value of the noise that was found")
    axes.set_ylabel("density")
    axes.set_title("Gaussian?", fontsize=10)
    axes.legend(fontsize=9, frameon=False, loc="upper left")
