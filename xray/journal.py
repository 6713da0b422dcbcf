"""Calls that were made, on disk: an experiment that was stopped goes on with the same command.

An experiment is a function of its options, so it calls its networks in the same order each time.
What a call gave out is kept under the call's number, with a checksum of what went in. A run that
is begun again is handed what was kept for as long as the same goes in, and makes the other calls.
The folder is named after all that decides a run (script, options, weights, versions, and the code
itself), and goes once the run has saved its report.
"""

import hashlib
import json
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from keras import tree

from stable_diffusion_tf.compiled import Call, calls_go_through
from stable_diffusion_tf.disk import whole_file

MOST = 20e9  # bytes that a run keeps; what is beyond them is made again
SPARE = 2e9  # bytes of the disk that are left to others
STALE = 7 * 86400  # seconds after which nobody goes on with a run
UNFINISHED = "unfinished"
PACKAGES = ("stable_diffusion_tf", "xray", "phantom", "experiments")
TOLD = "told"
BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what NumPy raises


class Watching(Protocol):
    """Who makes the calls: see xray/budget/watch.py."""

    long: bool

    def __call__(self, call: Call) -> Any: ...
    def pass_over(self, call: Call) -> None: ...


class Journal:
    """Takes the place of who makes the calls, `watch`. Of a run that is not long nothing is kept.

    place: tells the folder, which is asked for once there is something to keep or to find.
    """

    def __init__(self, unfinished: Path, place: Callable[[], Path], watch: Watching):
        self.watch, self.place, self.begun = watch, place, unfinished.exists()
        self.calls = self.found = 0
        self.bytes = 0

    @cached_property
    def folder(self) -> Path:
        return self.place()

    def __call__(self, call: Call) -> Any:
        number, self.calls = self.calls, self.calls + 1
        if not (self.begun or self.watch.long):
            return self.watch(call)
        place, given = self.folder / f"{number:06d}.npz", digest(call.arrays)
        kept = read(place, given)
        if kept is not None:
            self.found += 1
            self.bytes += place.stat().st_size
            self.watch.pass_over(call)
            return kept[0]
        made = self.watch(call)
        if self.watch.long:
            self.keep(place, given, made)
        return made

    def keep(self, place: Path, given: str, made: Any) -> None:
        """Write what a call gave out, unless it is too much; a disk that fails keeps less."""
        size = sum(np.asarray(array).nbytes for array in tree.flatten(made))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.bytes + size < min(MOST, shutil.disk_usage(self.folder).free - SPARE):
                write(place, given, made)
                self.bytes += size
        except OSError:
            pass  # the run itself goes on


@contextmanager
def kept(watch: Watching, unfinished: Path, key: Callable[[], str]) -> Iterator[Journal]:
    """Inside, calls go through a journal, in the folder `unfinished` under a key that is asked for
    when need be. It goes at the end, and stays where the run is stopped."""
    journal = Journal(unfinished, lambda: unfinished / key(), watch)
    with calls_go_through(journal):
        try:
            yield journal
        except KeyboardInterrupt:
            if watch.long:
                print("\nthe same command goes on where this one stopped", file=sys.stderr, end="")
            raise
    if "folder" in vars(journal):
        shutil.rmtree(journal.folder, ignore_errors=True)
        clear(unfinished)


def clear(unfinished: Path) -> None:
    """Remove what nobody went on with for days, and the folder itself once it is empty."""
    for other in unfinished.iterdir() if unfinished.exists() else ():
        if time.time() - other.stat().st_mtime > STALE:
            shutil.rmtree(other, ignore_errors=True)
    if unfinished.exists() and not any(unfinished.iterdir()):
        unfinished.rmdir()


def key_of(told: Mapping[str, Any], weights: Path) -> str:
    """A name for all that decides a run: what is told of it, the files of the weights (name, size
    and time, as reading them would take long), and the code."""
    files = sorted(weights.rglob("*")) if weights.is_dir() else [weights]
    found = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    seen = hashlib.sha256(json.dumps([told, found], sort_keys=True).encode())
    for package in PACKAGES:
        for source in sorted((Path(__file__).parents[1] / package).rglob("*.py")):
            seen.update(source.read_bytes())
    return seen.hexdigest()[:20]


def digest(arrays: Any) -> str:
    """A checksum of arrays, nested as they may be: of shapes, types and all bytes."""
    seen = hashlib.sha256()
    for array in map(np.ascontiguousarray, tree.flatten(arrays)):
        seen.update(f"{array.shape} {array.dtype}".encode())
        seen.update(array.data)
    return seen.hexdigest()


def write(place: Path, given: str, made: Any) -> None:
    """What was made of what was given, whole or not at all."""
    arrays: list[np.ndarray] = []
    told = json.dumps({"given": given, "made": taken_apart(made, arrays)})
    with whole_file(place) as fresh, fresh.open("wb") as file:
        np.savez(file, **{TOLD: told}, **{str(i): array for i, array in enumerate(arrays)})


def read(place: Path, given: str) -> tuple[Any] | None:
    """What was made of this, if it was kept; None of what is not there, or not whole."""
    try:
        with place.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            told = json.loads(str(file[TOLD]))
            return (put_together(told["made"], file),) if told["given"] == given else None
    except BROKEN:
        return None


def taken_apart(made: Any, arrays: list[np.ndarray]) -> Any:
    """Dicts, lists and None as JSON has them; arrays, which are added to the list, by number."""
    if isinstance(made, dict):
        return {"of": {name: taken_apart(one, arrays) for name, one in made.items()}}
    if isinstance(made, list | tuple):
        return [taken_apart(one, arrays) for one in made]
    if made is None:
        return None
    arrays.append(np.asarray(made))
    return len(arrays) - 1


def put_together(told: Any, arrays: Any) -> Any:
    if isinstance(told, dict):
        return {name: put_together(one, arrays) for name, one in told["of"].items()}
    if isinstance(told, list):
        return [put_together(one, arrays) for one in told]
    return None if told is None else arrays[str(told)]
