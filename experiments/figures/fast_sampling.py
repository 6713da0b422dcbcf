"""Pictures drawn in few steps and in many → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from xray.plain_figure import PlainFigure
from xray.plots import as_percent, as_shown, curve_with_intervals, head_line, picture

Table = Sequence[Mapping[str, Any]]


def steps_sheet(
    images: Mapping[tuple[str, int], np.ndarray], end: np.ndarray, table: Table, title: str
) -> Figure:
    """One noise drawn in growing numbers of steps, a row for each sampler, and the longest run;
    below, the distance to that run, and how many pictures are as asked.

    images: (sampler, steps) → (n, H, W, 3) in [-1, 1]; end: those of the longest run.
    """
    figure = PlainFigure(figsize=(12, 8.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(5, 4.2))
    rows, last = upper.subfigures(1, 2, width_ratios=(2.3, 1))
    draw_pictures(rows, images, table)
    axes = last.subplots()
    picture(axes, as_shown(end[0]))
    axes.set_title(f"{table[0]['sampler']}\n{table[-1]['steps']} steps", fontsize=10)
    judged = "as asked" in table[0]
    first, *second = lower.subplots(1, 2 if judged else 1, squeeze=False)[0]
    draw_distances(first, table)
    for axes in second:
        draw_as_asked(axes, table)
    head_line(figure, title)
    return figure


def draw_pictures(
    figure: SubFigure, images: Mapping[tuple[str, int], np.ndarray], table: Table
) -> None:
    samplers, counts = (list(dict.fromkeys(keys)) for keys in zip(*images, strict=True))
    away = {(row["sampler"], row["steps"]): row.get("away") for row in table}
    grid = figure.subplots(len(samplers), len(counts), squeeze=False)
    for line, name in zip(grid, samplers, strict=True):
        for axes, n in zip(line, counts, strict=True):
            picture(axes, as_shown(images[name, n][0]))
            axes.set_xlabel(f"{away[name, n].short} away", fontsize=9)
        line[0].set_ylabel(name, fontsize=10)
    for axes, n in zip(grid[0], counts, strict=True):
        axes.set_title("1 step" if n == 1 else f"{n} steps", fontsize=10)


def draw_distances(axes: Axes, table: Table) -> None:
    """On logarithmic axes, where 1/n is a straight line."""
    for style, (name, rows) in enumerate(by_sampler(table, "away").items()):
        counts = [row["steps"] for row in rows]
        curve_with_intervals(axes, counts, [row["away"] for row in rows], name, style)
        if not style:
            guide = [rows[0]["away"].value * counts[0] / n for n in counts]
            axes.plot(counts, guide, color="0.3", lw=1, ls=":", label="falling as 1/n")
    axes.axhline(table[-1]["away"].value, color="0.3", lw=1, ls="--", label="another noise")
    axes.set_yscale("log")
    finish(axes, counts, f"distance to {table[-1]['steps']} DDIM steps,\nRMS, % of full scale")


def draw_as_asked(axes: Axes, table: Table) -> None:
    longest = table[-2]
    for style, (name, rows) in enumerate(by_sampler(table, "as asked").items()):
        counts = [row["steps"] for row in rows]
        shares = [as_percent(row["as asked"]) for row in rows]
        curve_with_intervals(axes, np.array(counts) * 1.04**style, shares, name, style)
    label = f"{longest['steps']} steps of DDIM"
    axes.axhline(100 * longest["as asked"].value, color="0.3", lw=1, ls="--", label=label)
    axes.set_ylim(0, 105)
    finish(axes, counts, "pictures as asked, %")


def by_sampler(table: Table, column: str) -> dict[str, list[Mapping[str, Any]]]:
    """Sampler → its rows that have this column; not those that were drawn once."""
    rows = [row for row in table[:-2] if column in row]
    return {
        name: [r for r in rows if r["sampler"] == name] for name in {r["sampler"]: 0 for r in rows}
    }


def finish(axes: Axes, counts: Sequence[int], unit: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("steps, two UNet calls each")
    axes.set_ylabel(unit)
    axes.legend(fontsize=9, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
