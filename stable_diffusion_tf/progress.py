"""How far a long run is: a bar on a terminal, now and then a line where there is none."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm import tqdm

EVERY = 20.0  # seconds between two lines

PARTS = ContextVar("parts", default=True)  # whether parts of a run are told

Item = TypeVar("Item")


def progress_bar(
    items: Sequence[Item], what: str = "denoising", unit: str = "step"
) -> Iterable[Item]:
    """The items, with a bar on the terminal; where the error output is none, with a line every
    20 s; where it is closed, or the run is told as a whole, with nothing."""
    if sys.stderr is None or not PARTS.get():
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


@contextmanager
def whole_run(seconds: float) -> Iterator[Callable[[float], None]]:
    """Inside, a run that is to take so long is told as a whole, and no part of it by itself. What
    is handed out takes the seconds of work, as foreseen, whenever some are done; how long the rest
    takes is told by the pace until then."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    form = "{l_bar}{bar}| {elapsed}{postfix}"
    bar = tqdm(
        total=seconds, desc="the whole run", bar_format=form, leave=False, disable=not terminal
    )
    started = told = time.monotonic()
    done = 0.0

    def advance(more: float) -> None:
        nonlocal done, told
        now, done = time.monotonic(), min(done + more, seconds)
        left = (now - started) / max(done, 1e-9) * (seconds - done)
        if terminal:
            bar.set_postfix_str(f"about {in_words(left)} left", refresh=False)
            bar.update(done - bar.n)
        elif sys.stderr is not None and now - told >= EVERY:
            line = f"the whole run: {done / seconds:.0%}, about {in_words(left)} left"
            print(line, file=sys.stderr, flush=True)
            told = now

    before = PARTS.set(False)
    try:
        with bar:
            yield advance
    finally:
        PARTS.reset(before)


def in_words(seconds: float) -> str:
    """'40 s', '14 min' or '2.5 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
