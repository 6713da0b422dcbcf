"""The shell's arguments: read by tyro, and what is wrong with them told in a line."""

import functools
import io
import itertools
import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import TypeVar

import tyro

from stable_diffusion_tf.errors import UsageError

Parsed = TypeVar("Parsed")


def check_dashes(words: Sequence[str]) -> None:
    """Raises UsageError for a text that begins with a dash, which would be taken for an option."""
    before = words[: words.index("--")] if "--" in words else words
    for last, word in zip(["", *before], before, strict=False):
        if re.match(r"-\S* ", word) and not re.match(r"--\w", last) and "=" not in word:
            raise UsageError(
                f"“{word}” begins with a dash; end the line with -- {shlex.quote(word)}"
            )


def parsed(kind: Callable[..., Parsed], description: str | None = None) -> Parsed:
    """What tyro makes of the shell's arguments. Raises UsageError, where tyro draws a box."""
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(kind, description=description)
    except SystemExit as error:
        if not error.code:
            raise
        raise UsageError(in_a_line(box.getvalue())) from None


def in_a_line(box: str) -> str:
    """A box of tyro's: a title, then parts with rules between them, of which the first says what is
    wrong."""
    _title, *lines = (line.strip("│ ") for line in box.splitlines())
    apart = itertools.groupby(lines, lambda line: re.fullmatch("[─╰╯-]+", line) is not None)
    said, *more = (" ".join(part) for rule, part in apart if not rule)
    meant = re.search(r"meant: (--[\w-]+)", " ".join(more))
    hint = f"did you mean {meant[1]}?" if meant else "try --help"
    return f"{said[:1].lower()}{said[1:].rstrip('.')}; {hint}"


def later(main: Callable[..., None]) -> Callable[..., functools.partial]:
    """main, but what it is asked for is not done yet: what does it is handed back."""

    @functools.wraps(main)
    def ask(*positional, **options) -> functools.partial:
        return functools.partial(main, *positional, **options)

    return ask
