"""Smaller options of an experiment: fewer pictures, fewer steps, and never fewer than it allows."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TypeVar

from stable_diffusion_tf.errors import UsageError
from xray.options import Options

AMOUNTS = (
    "pictures",
    "number",
    "points",
    "steps",
    "batch",
    "held",
    "rivals",
)  # options that say how much is done
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.33, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.0)

Asked = TypeVar("Asked", bound=Options)


def amounts(asked: Asked) -> dict[str, int]:
    """Options that say how much is done → what was asked for."""
    found = {field.name: getattr(asked, field.name) for field in fields(asked)}
    return {name: found[name] for name in AMOUNTS if isinstance(found.get(name), int)}


def allowed(asked: Asked) -> bool:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            asked.check()
    except UsageError:
        return False
    return True


def shrunk(asked: Asked, share: float) -> Asked:
    """A share of each amount, rounded; as much as is allowed where that is too little."""
    for name, value in amounts(asked).items():
        for less in range(max(1, round(share * value)), value):
            if allowed(one := replace(asked, **{name: less})):
                asked = one
                break
    return asked


def smaller(asked: Asked) -> list[Asked]:
    """Ever smaller options, each allowed, down to the least; none where there is nothing to make
    smaller."""
    found = [shrunk(asked, share) for share in SHARES]
    return [one for one in dict.fromkeys(found) if one != asked]


def first_that(fits: Callable[[Asked], bool], options: list[Asked]) -> Asked | None:
    """The largest of ever smaller options that fits, found by halves; None where none does."""
    low, high = 0, len(options)  # all before low do not fit, all from high on do
    while low < high:
        middle = (low + high) // 2
        if fits(options[middle]):
            high = middle
        else:
            low = middle + 1
    return options[low] if low < len(options) else None


def as_typed(asked: Asked, before: Asked) -> str:
    """The amounts that differ, as they are typed: '--pictures 2 --steps 10'."""
    was = amounts(before)
    told = {name: value for name, value in amounts(asked).items() if value != was[name]}
    return " ".join(f"--{name} {value}" for name, value in told.items())
