"""Numbers of a file that are mapped into memory and not copied, and whose pages go back to the
system: left alone, each page that was read would count as this process' memory."""

import mmap
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import numpy as np

from ..errors import UsageError

EVERY = 0.05  # seconds
SMALLEST = 2**16  # bytes worth a map: each keeps a file open, and a process may have 1,024
MAPS: WeakSet[mmap.mmap] = WeakSet()  # all that some array still lies in


def map_numbers(place: str, dtype: Any, count: int, offset: int) -> np.ndarray:
    """(count,) numbers that begin at the byte `offset` of a file. What is written into them stays
    in memory."""
    size = count * np.dtype(dtype).itemsize
    skipped = offset % mmap.ALLOCATIONGRANULARITY
    try:
        with open(place, "rb") as file:
            start, length = offset - skipped, skipped + size
            pages = mmap.mmap(file.fileno(), length, offset=start, access=mmap.ACCESS_COPY)
    except ValueError:
        raise UsageError(f"{place} has become shorter while it was read; fetch it again") from None
    MAPS.add(pages)
    return np.frombuffer(pages, dtype, count, skipped)


def in_a_file(numbers: np.ndarray) -> np.ndarray:
    """The numbers in a temporary file, mapped likewise; as they are where no disk will take them.
    The file has no name, and goes when nothing lies in it any more."""
    if numbers.nbytes < SMALLEST:
        return numbers
    with suppress(OSError), tempfile.TemporaryFile() as file:
        file.write(np.ascontiguousarray(numbers).view(np.uint8))
        file.flush()
        pages = mmap.mmap(file.fileno(), numbers.nbytes, access=mmap.ACCESS_COPY)
        MAPS.add(pages)
        return np.frombuffer(pages, numbers.dtype).reshape(numbers.shape)
    return numbers


def give_back() -> None:
    """Let go of all mapped pages; who reads one again has the system fetch it. Windows does so by
    itself."""
    for pages in [*MAPS]:
        if hasattr(pages, "madvise"):
            pages.madvise(mmap.MADV_DONTNEED)


@contextmanager
def given_back_meanwhile() -> Iterator[None]:
    """Inside, mapped pages go back as others are read."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(EVERY):
            give_back()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        give_back()
