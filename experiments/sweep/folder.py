"""A sweep on disk: what it is of, the runs that were asked for, and what came of each.

sweep.json     of which experiment, with which versions
plan.jsonl     the runs that were ever asked for, in order: hash and options
runs/HASH/     a report, there as a whole or not at all
failed/HASH.json   why a run was set aside
lock           who writes, while somebody does
"""

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from stable_diffusion_tf.disk import whole_file
from stable_diffusion_tf.errors import UsageError
from xray.film.claims import hold
from xray.report import JSON, read_report, write_json
from xray.script import as_text, cannot_write_into

SWEEP, PLAN, RUNS, FAILED, LOCK = "sweep.json", "plan.jsonl", "runs", "failed", "lock"
PART = ".part"
FORMAT = 1  # of all this
DONE, UNCONTROLLED, ASIDE, WAITING = "done", "control failed", "failed", "waiting"


class Run(NamedTuple):
    """A run: the hash of all that determines it, and its options."""

    key: str
    options: Any


# --- whose it is -------------------------------------------------------------------------------


@contextmanager
def held(folder: Path, facts: Mapping[str, Any]) -> Iterator[None]:
    """A sweep's folder, new or to go on with, that nobody else writes into. facts: what all of its
    runs share. Raises UsageError where the folder holds another sweep or something else, where
    another process writes into it, and where it cannot be written."""
    try:
        check_is_sweep(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            check_same(folder, {"format": FORMAT, **facts})
            for name in (RUNS, FAILED):
                (folder / name).mkdir(exist_ok=True)
            remove_parts(folder)
            try:
                yield
            finally:
                remove_parts(folder)
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise  # of workers, not of the disk
        raise cannot_write_into(folder, error) from None


def remove_parts(folder: Path) -> None:
    """Of runs that were stopped, or killed."""
    for part in (folder / RUNS).glob(f"*{PART}"):
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The system lets go of the folder when this process ends, however it ends; a lock file that
    is left behind then says nothing."""
    try:
        handle = hold(folder)
    except (BlockingIOError, FileExistsError):
        raise UsageError(
            f"{holder(folder)} writes into {folder} right now; wait for it or name another --out"
        ) from None
    try:
        (folder / LOCK).write_text(f"process {os.getpid()} on {platform.node()}", "utf-8")
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        os.close(handle)


def holder(folder: Path) -> str:
    try:
        return (folder / LOCK).read_text("utf-8", "replace") or "another sweep"
    except OSError:  # which has not come as far yet
        return "another sweep"


def check_is_sweep(folder: Path) -> None:
    """Raises UsageError for what is there and is no sweep."""
    if not folder.exists() or (folder / SWEEP).is_file():
        return
    if not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir()):
        raise UsageError(f"{folder} is there and holds no sweep; name another --out")


def check_same(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write sweep.json, or raise UsageError where the one that is there says something else."""
    if not (folder / SWEEP).exists():
        write_json(facts, folder / SWEEP)
        return
    try:
        there = json.loads((folder / SWEEP).read_text("utf-8"))
        for name, here in flat(facts).items():
            if (before := flat(there).get(name)) != here:
                raise UsageError(f"{folder} {PARTED.get(name, OTHER)}; name another --out".format(
                    name=name, before=before, here=here
                ))  # fmt: skip
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{folder / SWEEP} cannot be read; name another --out") from None


OTHER = "was begun with {name} {before}, and here is {here}"
PARTED = {  # what the folder and this sweep differ in → how to say it
    "format": "is a sweep of format {before}, and this version writes format {here}",
    "experiment": "holds runs of {before}, not of {here}",
    "source": "holds runs of this experiment as it was before it was changed",
}


def flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {**{n: v for n, v in facts.items() if n != "versions"}, **facts.get("versions", {})}


# --- what is to be done ------------------------------------------------------------------------


def add_to_plan(folder: Path, runs: Sequence[Run]) -> None:
    """Remember the runs that were not asked for before."""
    before = {key: line for key, line in plan_of(folder)}
    fresh = {run.key: told(run.options) for run in runs if run.key not in before}
    if fresh:
        with whole_file(folder / PLAN) as path, open(path, "w", encoding="utf-8") as file:
            for key, options in {**before, **fresh}.items():
                file.write(json.dumps({"run": key, "options": options}) + "\n")


def told(options: Any) -> dict[str, Any]:
    """The options of a run; where it saves is the sweep's."""
    return {name: value for name, value in as_text(options).items() if name != "out"}


def plan_of(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The runs that were ever asked for, in order: hash and options."""
    if (folder / PLAN).exists():
        with open(folder / PLAN, encoding="utf-8") as file:
            for line in map(json.loads, file):
                yield line["run"], line["options"]


def left_of(folder: Path, runs: Sequence[Run], again: bool) -> list[Run]:
    """The runs that are neither finished nor set aside. again: those set aside have another try.
    What lies in the place of a run and is no report, after a power cut, goes."""
    if again:
        for run in runs:
            (folder / FAILED / f"{run.key}.json").unlink(missing_ok=True)
    aside = {path.stem for path in (folder / FAILED).glob("*.json")}
    return [run for run in runs if run.key not in aside and not is_finished(folder, run.key)]


def is_finished(folder: Path, key: str) -> bool:
    place = folder / RUNS / key
    if not place.exists():
        return False
    try:
        read_report(place / JSON)
        return True
    except UsageError:
        shutil.rmtree(place)
        return False


# --- what came of it ---------------------------------------------------------------------------


def make_part(folder: Path, key: str) -> Path:
    """Where a run is written to, beside its place: empty."""
    part = folder / RUNS / f"{key}{PART}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    return part


def write_files(part: Path, files: Mapping[str, bytes]) -> None:
    """files: path inside of the part → what it holds."""
    for name, held_in in files.items():
        place = part / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(held_in)


def keep(folder: Path, key: str) -> None:
    """A run that is written as a whole comes to its place."""
    part = folder / RUNS / f"{key}{PART}"
    os.replace(part, part.with_name(key))


def set_aside(folder: Path, run: Run, error: str, trace: str) -> None:
    shutil.rmtree(folder / RUNS / f"{run.key}{PART}", ignore_errors=True)
    facts = {"run": run.key, "options": told(run.options), "error": error, "traceback": trace}
    write_json(facts, folder / FAILED / f"{run.key}.json")


def rows(folder: str | Path) -> Iterator[dict[str, Any]]:
    """What came of each run that was ever asked for, in order: `run`, its hash; `status`, which is
    done, control failed, failed or waiting; `options`; and where there is one `finding`, `control`,
    `numbers` (name → value or Estimate), `seconds`, `error`. One is read at a time."""
    folder = Path(folder)
    for key, options in plan_of(folder):
        row = {"run": key, "status": WAITING, "options": options}
        if (folder / RUNS / key).exists():
            report, facts = read_report(folder / RUNS / key / JSON)
            row["status"] = DONE if report.control.passed else UNCONTROLLED
            row |= {"finding": report.finding, "control": str(report.control)}
            row |= {"numbers": report.numbers, "seconds": facts["seconds"]}
        elif (folder / FAILED / f"{key}.json").exists():
            said = json.loads((folder / FAILED / f"{key}.json").read_text("utf-8"))
            row |= {"status": ASIDE, "error": said["error"]}
        yield row
