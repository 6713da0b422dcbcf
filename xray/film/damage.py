"""What is wrong with the files of a film; the work is bounded by what is there."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from .storage import (
    DECODED,
    FACTS,
    IMAGE,
    TEXT,
    Frame,
    fault_of_facts,
    fault_of_frame,
    fault_of_image,
    fault_of_tensors,
    frame_path,
    steps_there,
)

CHECKS = {TEXT: fault_of_tensors, DECODED: fault_of_tensors, IMAGE: fault_of_image}
NAMED = 20  # of frames that are missing one after the other, before the rest is counted


def find_damage(folder: Path, steps: int | None) -> dict[str, str]:
    """File → what is wrong with it. steps: how many were asked for, if that can be read. Frames may
    be missing only at the end of a run that has left no picture."""
    there = steps_there(folder)
    checks = {folder / name: check for name, check in CHECKS.items() if (folder / name).exists()}
    checks |= {folder / FACTS: fault_of_facts} | (
        {folder / TEXT: fault_of_tensors} if there else {}
    )
    checks |= {frame_path(folder, i): fault_of_frame for i in there}
    found = {path: wrong for path, find_fault in checks.items() if (wrong := find_fault(path))}
    steps = None if folder / FACTS in found else steps
    own = [i for i in there if steps is None or i < steps]
    for i in there:
        if i not in own:
            found[frame_path(folder, i)] = f"is the frame of no step: the run has {steps}"
    whole = [path for i in own if (path := frame_path(folder, i)) not in found]
    found |= dict(of_another_run(whole))
    last = steps if steps is not None and (folder / IMAGE).is_file() else max(own, default=-1) + 1
    found |= {frame_path(folder, i): wrong for i, wrong in gaps(own, last)}
    return {within(folder, path): wrong for path, wrong in found.items()}


def of_another_run(frames: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """The frames that hold other arrays than most do."""
    names = {path: frozenset(Frame(path)) for path in frames}
    most = Counter(names.values()).most_common(1)
    for path, held in names.items():
        if held != most[0][0]:
            yield path, "holds other arrays than most frames do"


def gaps(there: Sequence[int], count: int) -> Iterator[tuple[int, str]]:
    """The steps below `count` that have no frame; of many in a row the first stand for the rest."""
    for before, after in zip([-1, *there], [*there, count], strict=True):
        missing = range(before + 1, after)
        for i in missing[:NAMED]:
            yield i, "is missing"
        if rest := missing[NAMED:]:
            yield rest[0], f"is missing, and so are {len(rest) - 1} after it"


def within(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
