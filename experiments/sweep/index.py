"""index.csv: a row for each run, with its options, what it found, and how it went."""

import csv
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from stable_diffusion_tf.disk import whole_file
from xray.report import flat

from .folder import rows

INDEX = "index.csv"
BEFORE, AFTER = ("run", "status"), ("finding", "control", "seconds", "error")


def write_index(folder: Path) -> dict[str, str]:
    """Gone through twice, for the columns and for the rows, so that one row is held at a time.
    Each run's hash → its status."""
    options, found, states = {}, {}, {}
    for row in rows(folder):
        options |= dict.fromkeys(row["options"])
        found |= dict.fromkeys(dict(flat(row.get("numbers", {}))))
        states[row["run"]] = row["status"]
    columns = [*BEFORE, *options, *AFTER, *(number_column(name, options) for name in found)]
    with whole_file(folder / INDEX) as path, open(path, "w", **TEXT) as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows(folder):
            writer.writerow(dict(cells(row, options)))
    return states


TEXT = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}


def cells(row: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in (*BEFORE, *AFTER):
        yield name, row.get(name)
    yield from row["options"].items()
    for name, value in flat(row.get("numbers", {})):
        yield number_column(name, options), value


def number_column(name: str, options: Container[str]) -> str:
    """A number may be called as an option is, `steps`; and both have a column."""
    taken = name in options or name in BEFORE or name in AFTER
    return f"{name} (number)" if taken else name
