"""Numbers and places that people hand in: what they are meant to be, or one line that refuses."""

import operator
from pathlib import Path
from typing import Any

from .errors import UsageError


def whole(name: str, value: Any, usual: int) -> int:
    """A whole number of any type. Raises UsageError for what is none, 2.0 as well."""
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name}={value!r} is no whole number; try {name}={usual}") from None


def number(name: str, value: Any, least: float, most: float, usual: float) -> float:
    """A number from `least` to `most`. Raises UsageError for what is none, NaN as well."""
    try:
        given = operator.truediv(value, 1)  # a float of numbers, and of nothing else
        inside = bool(least <= given <= most)
    except (TypeError, ValueError, OverflowError):  # a text, an array, 10**400
        inside = False
    if not inside:
        article = "an" if name[0] in "aeio" else "a"
        told = f"{value:g}" if isinstance(value, float) else repr(value)
        raise UsageError(
            f"{article} {name} of {told:.60} is no number from {least:g} to {most:g}; try "
            f"{name}={usual:g}"
        )
    return given


def check_seed(seed: int) -> int:
    """Raises UsageError for what is no whole number, or negative."""
    seed = whole("seed", seed, 0)
    if seed < 0:
        raise UsageError(f"a seed of {seed} is negative; try {-seed}")
    return seed


def place(name: str, value: Any) -> Path:
    """A path. Raises UsageError for what is none, or holds a zero byte, which no name may."""
    try:
        given = Path(value)
    except TypeError:
        given = None
    if given is None or "\0" in str(given):
        raise UsageError(f"{name}={value!r:.60} is no path; try {name}='outputs'")
    return given
