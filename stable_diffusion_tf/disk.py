"""Files: what stands at a path, and how to write one that is whole or not there at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import UsageError

ENDLESS = {  # what a path may lead to that never ends, or does not begin → what it is called
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def mode_of(path: Path) -> int | None:
    """What stands at the path, as `os.stat` tells it; None where there is nothing. Raises
    UsageError where that cannot be told: no permission, too long a name, links in a circle."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(path, error) from None


def is_there(path: Path) -> bool:
    """Whether there is anything. Raises UsageError as `mode_of` does."""
    return mode_of(path) is not None


def is_folder(path: Path) -> bool:
    """Raises UsageError as `mode_of` does."""
    return stat.S_ISDIR(mode_of(path) or 0)


def names_in(folder: Path) -> list[str]:
    """What a folder holds, in order. Raises UsageError where it may not be looked into."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise unreadable(folder, error) from None


def open_file(path: Path) -> BinaryIO:
    """A regular file, open for reading: of a pipe or a device, reading would wait for ever. Raises
    UsageError for all else, and for what cannot be read."""
    mode = mode_of(path)
    if mode is not None and stat.S_IFMT(mode) in ENDLESS:
        raise UsageError(f"{path} is {ENDLESS[stat.S_IFMT(mode)]}, not a file; save it as one")
    try:
        return open(path, "rb")
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")


@contextmanager
def whole_file(path: Path, mark: str = "") -> Iterator[Path]:
    """A place to write to that becomes `path` once all is written; a failure leaves what was.
    mark: part of its name, where several processes may write the same. Raises OSError."""
    fresh = path.with_name(f"{path.name}{mark}.part")
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
