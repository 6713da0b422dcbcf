"""How far a long run is: a bar on a terminal, now and then a line where there is none."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

EVERY = 20.0  # seconds between two lines

Item = TypeVar("Item")


def progress_bar(
    items: Sequence[Item], what: str = "denoising", unit: str = "step"
) -> Iterable[Item]:
    """The items, with a bar on the terminal; where the error output is none, with a line every
    20 s; where it is closed, with nothing."""
    if sys.stderr is None:
        return items
    if sys.stderr.isatty():
        return tqdm(items, desc=what, unit=unit, leave=False)
    return with_lines(items, what)


def with_lines(items: Sequence[Item], what: str) -> Iterator[Item]:
    started = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - told >= EVERY:
            left = (now - started) / done * (len(items) - done)
            line = f"{what}: {done} of {len(items)}, about {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)
            told = now
        yield item
