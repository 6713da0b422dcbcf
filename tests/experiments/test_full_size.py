"""The benchmark at full size takes hours; that no script refuses its options is seen here."""

import importlib
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
