"""The benchmark at full size takes hours; that no script refuses its options is seen here."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def runs(monkeypatch) -> dict[str, str]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("full_size").RUNS


def test_every_experiment_is_asked_and_takes_its_options(runs):
    there = {path.stem for path in (BENCHMARKS.parent / "experiments").glob("te[sx]t*.py")}
    assert runs.keys() == there
    for script, words in runs.items():
        options = importlib.import_module(f"experiments.{script}").Options
        tyro.cli(options, args=shlex.split(words)).check()


def test_the_page_tells_of_every_experiment_and_none_takes_more_than_is_promised(runs):
    page = (BENCHMARKS.parent / "docs/full-size.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {script.strip("`"): (words.strip("` "), cells) for script, words, *cells in rows}
    assert told.keys() == runs.keys()
    for script, (words, cells) in told.items():
        assert words == runs[script]
        peaks = [float(peak) for cell in cells for peak in re.findall(r"^([\d.]+) GB", cell)]
        columns = 2 if script == "test_precision" else 3  # which itself compares the precisions
        assert len(peaks) == columns and max(peaks) <= 8.0
