"""What a sweep comes to: the means over seeds with their intervals, as a table and as a figure."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stable_diffusion_tf.disk import whole_file
from stable_diffusion_tf.errors import UsageError
from xray.measure import Estimate, mean_of, share_of
from xray.measure.estimates import COUNTED
from xray.plain_figure import PlainFigure
from xray.plots import (
    STYLES,
    as_percent,
    bars_with_intervals,
    curve_with_intervals,
    head_line,
)
from xray.report import DPI, told, write_table

from .folder import DONE, rows
from .index import number_column

SUMMARY, FIGURE = "summary.csv", "summary.png"
RUNS = "runs"  # the column of how many
SEED = "seed"  # the option whose values are the cases of an estimate
SHOWN = 4  # numbers in the figure, where none are named
PANELS, CURVES, BARS = 12, len(STYLES), 24  # at the most
BESIDE = 0.04  # of the way to the next value, between two curves

Row = Mapping[str, Any]


def write_summary(folder: Path, numbers: Sequence[str] = ()) -> None:
    """summary.csv, and summary.png where there is something to draw. numbers: globs of those that
    the figure shows. Raises UsageError where one fits none."""
    table = summarize(rows(folder))
    with whole_file(folder / SUMMARY) as path:
        write_table(table, path)
    if shown := chosen(table, numbers):
        with whole_file(folder / FIGURE) as path:
            draw(table, shown).savefig(path, dpi=DPI, format="png")


# --- estimates ---------------------------------------------------------------------------------


def summarize(found: Iterable[Row]) -> list[dict[str, Any]]:
    """A row for each condition, which is what the runs have in common but for their seeds: the
    options that differ between conditions, how many runs it has, and each number's estimate over
    them. Runs whose control failed are none."""
    values: dict[tuple, dict[str, list]] = {}
    units: dict[str, str] = {}
    for row in found:
        if row["status"] == DONE:
            kept = {n: v for n, v in row["options"].items() if n != SEED}
            condition = values.setdefault(tuple((n, plain(v)) for n, v in kept.items()), {})
            condition.setdefault("", []).append(1.0)  # the run itself
            for number, value in row["numbers"].items():
                name = number_column(number, (*row["options"], RUNS))
                if (case := as_case(value)) is not None:
                    condition.setdefault(name, []).append(case)
                    units.setdefault(name, unit_of(value))
    varying = differing([dict(condition) for condition in values])
    return [
        {name: value for name, value in condition if name in varying}
        | {RUNS: len(held.pop(""))}
        | {name: estimate(some, units[name]) for name, some in held.items()}
        for condition, held in values.items()
    ]


def plain(value: Any) -> Any:
    """An option's value as a cell: of a list its values, with spaces between."""
    return " ".join(map(told, value)) if isinstance(value, list) else value


def differing(conditions: Sequence[Row]) -> list[str]:
    """The options that have several values."""
    names = dict.fromkeys(name for condition in conditions for name in condition)
    return [n for n in names if len({repr(condition.get(n)) for condition in conditions}) > 1]


def as_case(value: Any) -> float | bool | None:
    """What a run's number counts for; None where it is none."""
    if isinstance(value, Estimate):
        value = 100 * value.value if value.unit == COUNTED else value.value
    is_number = isinstance(value, bool | int | float) and np.isfinite(value)
    return value if is_number else None


def unit_of(value: Any) -> str:
    if isinstance(value, bool):
        return COUNTED
    unit = value.unit if isinstance(value, Estimate) else ""
    return "%" if unit == COUNTED else unit


def estimate(cases: Sequence[float | bool], unit: str) -> Estimate:
    return share_of(cases) if unit == COUNTED else mean_of(cases, unit)


# --- figure ------------------------------------------------------------------------------------


def numbers_in(table: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(name for row in table for name in row)
    return [n for n in names if any(isinstance(row.get(n), Estimate) for row in table)]


def chosen(table: Sequence[Row], patterns: Sequence[str]) -> list[str]:
    """The numbers to draw: those that fit; or the first few, of which first those that seeds move.
    Raises UsageError where nothing fits."""
    known = numbers_in(table)
    if not patterns:
        return sorted(known, key=lambda name: not moves(table, name))[:SHOWN]
    for pattern in patterns:
        if known and not fnmatch.filter(known, pattern):
            raise UsageError(f"no number fits {pattern}; there are {', '.join(known):.300}")
    return [n for n in known if any(fnmatch.fnmatch(n, p) for p in patterns)][:PANELS]


def moves(table: Sequence[Row], name: str) -> bool:
    """Whether a number is not the same for all seeds."""
    return any(row[name].width > 0 for row in table if isinstance(row.get(name), Estimate))


def draw(table: Sequence[Row], numbers: Sequence[str]) -> Figure:
    """A panel for each number: curves over the option that is a number, a curve for each
    combination of the others; bars where none is."""
    options = [name for name in table[0] if name not in (RUNS, *numbers_in(table))]
    over = next((name for name in options if is_axis(table, name)), None)
    wide = min(len(numbers), 2 if over else 1)
    deep = -(-len(numbers) // wide)
    bars = min(len(table), BARS)
    height = 3.6 if over else 0.9 + 0.32 * bars
    figure = PlainFigure(
        figsize=(6.2 * wide if over else 9, 0.8 + height * deep), layout="constrained"
    )
    panels = figure.subplots(deep, wide, squeeze=False).ravel()
    for axes, name in zip(panels, numbers, strict=False):
        known = [row for row in table if isinstance(row.get(name), Estimate)]
        if over:
            draw_curves(axes, known, name, over, [n for n in options if n != over])
        else:
            draw_bars(axes, known[:BARS], name, options)
    for axes in panels[len(numbers) :]:
        axes.set_axis_off()
    if over and len(options) > 1:
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", frameon=False, fontsize=9)
    head_line(figure, title(table, over, options))
    return figure


def is_axis(table: Sequence[Row], name: str) -> bool:
    """Whether an option has several values, all of which are numbers."""
    values = {row.get(name) for row in table}
    return len(values) > 1 and all(type(value) in (int, float) for value in values)


def title(table: Sequence[Row], over: str | None, options: Sequence[str]) -> str:
    runs = [row[RUNS] for row in table]
    each = f"{min(runs)}" if min(runs) == max(runs) else f"{min(runs)} to {max(runs)}"
    said = f"Means of {each} runs, with 95 % intervals over seeds"
    if over:
        count = len(labels(table, [n for n in options if n != over]))
        return f"{said}; {CURVES} of {count} curves" if count > CURVES else said
    return f"{said}; {BARS} of {len(table)} conditions" if len(table) > BARS else said


def labels(table: Sequence[Row], others: Sequence[str]) -> list[str]:
    return [*dict.fromkeys(label(row, others) for row in table)]


def label(row: Row, names: Sequence[str]) -> str:
    """A condition by its options; a single text says by itself what it is."""
    if len(names) == 1 and isinstance(row.get(names[0]), str):
        return told(row[names[0]])
    return ", ".join(f"{name} {told(row.get(name))}" for name in names)


def draw_curves(
    axes: Axes, table: Sequence[Row], name: str, over: str, others: Sequence[str]
) -> None:
    """Over the values of an option, evenly spread; each curve a little beside the last one, so
    that no interval hides another."""
    ticks, curves = sorted({row[over] for row in table}), labels(table, others)[:CURVES]
    for style, curve in enumerate(curves):
        mine = sorted((r for r in table if label(r, others) == curve), key=lambda r: r[over])
        aside = BESIDE * (style - (len(curves) - 1) / 2)
        at = [ticks.index(row[over]) + aside for row in mine]
        curve_with_intervals(axes, at, [in_percent(row[name]) for row in mine], curve, style)
    axes.set_xticks(range(len(ticks)), [told(tick) for tick in ticks])
    axes.set_xlabel(over)
    finish(axes, table, name)


def draw_bars(axes: Axes, table: Sequence[Row], name: str, options: Sequence[str]) -> None:
    shown = [in_percent(row[name]) for row in table]
    bars_with_intervals(axes, [label(row, options) or "all runs" for row in table], shown)
    finish(axes, table, name)


def finish(axes: Axes, table: Sequence[Row], name: str) -> None:
    unit = in_percent(table[0][name]).unit
    axes.set_title(f"{name}, {unit}" if unit else name, fontsize=10)


def in_percent(one: Estimate) -> Estimate:
    return as_percent(one) if one.unit == COUNTED else one
