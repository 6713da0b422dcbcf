"""Smaller options: never below what an experiment allows."""

import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from xray.budget.choice import allowed, amounts, as_typed, first_that, shrunk, smaller
from xray.options import Batch, Options

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted(path.stem for path in (ROOT / "experiments").glob("te[sx]t*.py"))


@dataclass(frozen=True)
class Several(Batch):
    number: int = 16
    """of other things."""


def test_a_share_of_each_amount_is_taken_and_nothing_else():
    asked = Several(seed=8, steps=40)
    less = shrunk(asked, 0.5)
    assert amounts(asked) == {"pictures": 8, "number": 16, "steps": 40}
    assert amounts(less) == {"pictures": 4, "number": 8, "steps": 20} and less.seed == 8
    assert as_typed(less, asked) == "--pictures 4 --number 8 --steps 20"


def test_the_least_is_what_is_allowed():
    least = smaller(Several())[-1]
    assert amounts(least) == {"pictures": 2, "number": 1, "steps": 1}
    assert smaller(least) == [] and smaller(Options()) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_whatever_is_smaller_is_allowed_and_ever_less(name):
    asked = importlib.import_module(f"experiments.{name}").Options()
    before = asked
    for less in smaller(asked):
        assert allowed(less) and less != before
        assert all(amounts(less)[key] <= value for key, value in amounts(before).items())
        before = less


@pytest.mark.parametrize("largest", range(11))
def test_the_first_that_fits_is_found_by_few_looks(largest):
    looks = []
    options = [*range(10, 0, -1)]
    found = first_that(lambda one: looks.append(one) or one <= largest, options)
    assert found == (largest or None) and len(looks) <= 4
