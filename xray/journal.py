"""Calls that were made, on disk: an experiment that was stopped goes on with the same command.

An experiment is a function of its options, so it calls its networks in the same order each time.
What a call gave out is kept under the call's number, with a checksum of what went in. A run that
is begun again is handed what was kept for as long as the same goes in, and makes the other calls.
The folder is named after all that decides a run (script, options, weights, precision, backend,
versions, and the code itself), and goes once the run has saved its report.
"""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from keras import tree

from stable_diffusion_tf.compiled import Call, Caller
from stable_diffusion_tf.disk import whole_file

MOST = 20e9  # bytes that a run keeps; what is beyond them is made again
SPARE = 2e9  # bytes of the disk that are left to others
TOLD = "told"
BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what NumPy raises


class Journal:
    """Takes the place of the networks; what is not kept is left to `caller`."""

    def __init__(self, folder: Path, caller: Caller):
        self.folder, self.caller = folder, caller
        self.calls = self.found = 0
        self.bytes = 0

    def __call__(self, call: Call) -> Any:
        place, given = self.folder / f"{self.calls:06d}.npz", digest(call.arrays)
        self.calls += 1
        kept = read(place, given)
        if kept is not None:
            self.found += 1
            return kept[0]
        made = self.caller(call)
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
