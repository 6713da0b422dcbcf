"""Measures the phantoms and writes docs/gallery/phantoms: how true maps of words are, and how each
phantom works inside, side by side.

python -m experiments.gallery.phantoms      both, half an hour
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from phantom.attribution.rating import SCORES
from xray.measure import Estimate

from .pages import GALLERY, escape, pack, table

PHANTOMS = ("phantom", "phantom-registers")
OUT = GALLERY / "phantoms"
COMPARED = (  # parts of the sheet that stand in the table, with the cases of each that do, or all
    ("attention", None),
    (
        "patched",
        (
            "nothing: its own things",
            "end and padding: its own things",
            "end and padding: the other prompt's",
            "words: its own things",
            "words: the other prompt's",
        ),
    ),
    ("attention removed", None),
    ("weight of a word", None),
    ("leakage", None),
    ("ablated", None),
    ("direction", None),
)
HEAD = """# The phantoms

Two small models with the anatomy of Stable Diffusion 1.x, trained on one world, that work in
opposite ways inside: in `phantom` the words speak; in `phantom-registers` the padding after them
carries the prompt. What a method finds of one by looking at the words, it must not find of the
other. `python -m experiments.gallery.phantoms` measures all of this again. Intervals are 95 %, over
pictures.
"""


def main(weights: tuple[str, ...] = PHANTOMS, out: Path = OUT) -> None:
    """Run both commands and write the page.

    Args:
        weights: phantoms, by name or folder.
        out: the folder to write into.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = run(["phantom.attribution", "--weights", *weights], Path(scratch))
        keep(folder, "attribution", out)
        for name in weights:
            folder = run(["phantom.physiology", "--weights", name], Path(scratch))
            keep(folder, f"physiology-{Path(name).name}", out)
    names = [Path(name).name for name in weights]
    (out / "README.md").write_text(page(names, out), encoding="utf-8")


def run(command: Sequence[str], scratch: Path) -> Path:
    """One command; where it saved."""
    out = Path(tempfile.mkdtemp(dir=scratch))
    subprocess.run([sys.executable, "-m", *command, "--out", str(out)], check=True)
    return next(next(out.iterdir()).iterdir())


def keep(folder: Path, name: str, out: Path) -> None:
    """Its report and its picture."""
    shutil.copyfile(folder / "report.json", out / f"{name}.json")
    (picture,) = folder.glob("*.png")
    pack(picture, out / f"{name}.webp")


# --- the page ----------------------------------------------------------------------------------


def page(names: Sequence[str], out: Path) -> str:
    """Written from the reports that lie in `out`."""
    attribution = json.loads((out / "attribution.json").read_text("utf-8"))["tables"]
    sheets = {
        name: json.loads((out / f"physiology-{name}.json").read_text("utf-8"))["table"]
        for name in names
    }
    parts = [
        HEAD,
        "## How true are maps of words?\n",
        "Maps of the words for things in held-out scenes of two, against exact masks: "
        "[what the scores are](../../attribution.md).\n",
        "![Scores of methods of attribution](attribution.webp)\n",
    ]
    for name, found in attribution.items():
        rows = [scores(row) for row in found["scenes"]["things"]]
        parts += [f"### {Path(name).name}\n", table(("map", *SCORES), rows)]
    parts += ["## How do they work inside?\n", table(("", "", *names), compared(sheets))]
    parts += [f"![Physiology of {name}](physiology-{name}.webp)\n" for name in names]
    return "\n".join(parts).rstrip() + "\n"


def scores(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (escape(row["method"]), *(told(row[score]) for score in SCORES))


def told(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    ends = {end: float("nan") if found[end] is None else found[end] for end in ("low", "high")}
    return str(Estimate(**{**found, **ends}))


def compared(sheets: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str, ...]]:
    """A row for each case that is in the sheet of any."""
    found = {
        name: {(row["part"], row["case"]): row for row in rows} for name, rows in sheets.items()
    }
    for part, chosen in COMPARED:
        cases = dict.fromkeys(case for rows in found.values() for p, case in rows if p == part)
        for case in cases if chosen is None else chosen:
            cells = (estimate(rows.get((part, case))) for rows in found.values())
            yield escape(part), escape(case), *cells


def estimate(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else told({name: row[name] for name in Estimate._fields})


if __name__ == "__main__":
    tyro.cli(main)
