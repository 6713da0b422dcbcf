"""What an experiment answers: a sentence, the numbers behind it, and a control."""

import csv
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import save_file

from stable_diffusion_tf.disk import whole_file
from stable_diffusion_tf.errors import UsageError
from xray.measure import Estimate

FIGURE, TABLE, TENSORS, JSON = "figure.png", "table.csv", "tensors.safetensors", "report.json"
DPI = 150
PRINTED = 20  # rows of a table

Value = Estimate | float | int | str | bool | None


@dataclass(frozen=True)
class Control:
    """What would have failed if the number meant nothing.

    tried: what was done; outcome: what came of it; passed: whether that was as it must be;
    otherwise: what it would mean if not.
    """

    tried: str
    outcome: Value
    passed: bool
    otherwise: str

    def __str__(self) -> str:
        return f"{self.tried}: {told(self.outcome)}"


@dataclass(frozen=True)
class Report:
    """An experiment's answer; nothing is printed or written before `save`.

    finding: one sentence, 25 words at most, with one number and its interval.
    numbers: name → value; None: all in the table, named by their row's first cell and their column.
    table: rows, each column → cell. figure: the sheet.
    tensors: name → array. pictures: name → (H, W, 3) uint8 or a Figure, more files than the sheet.
    tables: name → more tables, which are saved and not printed.
    notes: what the user should know before the table, a line each. film: the folder of a film.
    page: a film as HTML.
    """

    finding: str
    control: Control
    numbers: Mapping[str, Value] | None = None
    table: Sequence[Mapping[str, Value]] = ()
    figure: Figure | None = None
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    pictures: Mapping[str, np.ndarray | Figure] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Value]]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    film: Path | None = None
    page: Path | None = None

    def __str__(self) -> str:
        """As a script prints it."""
        lines = [*self.notes, *table_lines(self.table[:PRINTED])]
        if len(self.table) > PRINTED:
            lines.append(f"… and {len(self.table) - PRINTED} rows more, in {TABLE}")
        return "\n".join([*lines, f"finding  {self.finding}", f"control  {self.control}"])

    def _repr_html_(self) -> str:
        """As a notebook shows it, above the figure."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns_of(self.table))
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(told(c))}</td>' for c in cells)}</tr>"
            for cells in cells_of(self.table)
        )
        return (
            f"<p><b>{html.escape(self.finding)}</b></p>"
            f"<table><tr>{head}</tr>{rows}</table><p>Control: {html.escape(str(self.control))}</p>"
        )

    def save(self, folder: Path, facts: Mapping[str, Any]) -> dict[str, Path]:
        """Write all that there is into a folder that exists, and report.json last: the report with
        the `facts` of the run around it. The kinds of files → where they lie. Raises OSError."""
        made = {}
        for kind, name, there, write in (
            ("figure", FIGURE, self.figure, save_picture),
            ("table", TABLE, self.table, write_table),
            ("tensors", TENSORS, self.tensors, write_tensors),
        ):
            if there:
                made[kind] = folder / name
                write(there, made[kind])
        for name, picture in self.pictures.items():
            made[name] = folder / f"{name}.png"
            save_picture(picture, made[name])
        for name, rows in self.tables.items():
            made[name] = folder / f"{name}.csv"
            write_table(rows, made[name])
        for kind in ("film", "page"):
            if place := getattr(self, kind):
                made[kind] = place
        files = {kind: str(path.relative_to(folder)) for kind, path in made.items()}
        write_json({**facts, **self.as_data(), "files": files}, folder / JSON)
        return {**made, "report": folder / JSON}

    def as_data(self) -> dict[str, Any]:
        """What report.json says of it; NaN and infinity are null there."""
        numbers = numbers_of(self.table) if self.numbers is None else self.numbers
        control = {name: as_data(value) for name, value in vars(self.control).items()}
        return {
            "finding": self.finding,
            "control": control,
            "numbers": {name: as_data(value) for name, value in numbers.items()},
            "table": [{name: as_data(cell) for name, cell in row.items()} for row in self.table],
            "notes": [*self.notes],
        }


def told(value: Value) -> str:
    """A value as a line of text has it."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def as_data(value: Value) -> Any:
    """A value as JSON has it: an estimate with all of its fields."""
    if isinstance(value, Estimate):
        return {name: as_data(part) for name, part in value._asdict().items()}
    if isinstance(value, np.generic):
        return as_data(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def read_report(path: Path) -> tuple[Report, dict[str, Any]]:
    """What a report.json says: the report, without its figure and tensors, and the facts of its run
    (question, options, model, seconds, files …). Raises UsageError where it is none."""
    try:
        said = json.loads(path.read_text("utf-8"))
        control = said.pop("control")
        outcome = from_data(control.pop("outcome"))
        numbers = {name: from_data(value) for name, value in said.pop("numbers").items()}
        table = [{n: from_data(cell) for n, cell in row.items()} for row in said.pop("table")]
        made = Control(outcome=outcome, **control)
        return Report(said.pop("finding"), made, numbers, table, notes=said.pop("notes")), said
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no report ({error}); name the report.json of a run") from None


def from_data(value: Any) -> Value:
    """`as_data` undone; what was not finite is NaN."""
    if not isinstance(value, dict):
        return value
    return Estimate(**{n: np.nan if part is None else part for n, part in value.items()})


# --- tables ------------------------------------------------------------------------------------


def columns_of(table: Sequence[Mapping[str, Value]]) -> list[str]:
    return [*dict.fromkeys(name for row in table for name in row)]


def cells_of(table: Sequence[Mapping[str, Value]]) -> list[list[Value]]:
    return [[row.get(name) for name in columns_of(table)] for row in table]


def numbers_of(table: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    """Each cell but a row's first, which names the row: `padding: B's things`."""
    return {
        f"{told(label)}: {name}": cell
        for (_, label), *cells in (row.items() for row in table)
        for name, cell in cells
    }


def table_lines(table: Sequence[Mapping[str, Value]]) -> list[str]:
    """Columns side by side, numbers to the right."""
    rows = [columns_of(table), *([told(cell) for cell in cells] for cells in cells_of(table))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [
        all(isinstance(c, str) for c in column) for column in zip(*cells_of(table), strict=True)
    ]
    return [
        "  ".join(
            cell.ljust(width) if words else cell.rjust(width)
            for cell, width, words in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
        if row
    ]


# --- files -------------------------------------------------------------------------------------


def save_picture(picture: np.ndarray | Figure, path: Path) -> None:
    if isinstance(picture, Figure):
        picture.savefig(path, dpi=DPI)
    else:
        Image.fromarray(picture).save(path)


def write_table(table: Sequence[Mapping[str, Value]], path: Path) -> None:
    """A column for each name; an estimate becomes five: value, low, high, n, unit."""
    rows = [dict(flat(row)) for row in table]
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns_of(rows))
        writer.writeheader()
        writer.writerows(rows)


def flat(row: Mapping[str, Value]):
    for name, cell in row.items():
        if isinstance(cell, Estimate):
            yield name, cell.value
            yield from (
                (f"{name} {part}", x) for part, x in cell._asdict().items() if part != "value"
            )
        else:
            yield name, cell


def write_tensors(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)


def write_json(data: Mapping[str, Any], path: Path) -> None:
    with whole_file(path) as fresh:
        text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
        fresh.write_text(text, "utf-8", "backslashreplace")  # half a surrogate pair: JSON's escape
