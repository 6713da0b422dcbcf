"""What computes runs, wherever it is: it holds one model, and loads it once."""

import errno
import os
import pickle
import platform
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from stable_diffusion_tf.backend import chosen_backend
from stable_diffusion_tf.errors import UsageError, on_one_line
from xray.options import Options
from xray.script import (
    check_guided,
    load_model,
    named,
    native_stderr_closed,
    save_run,
    start_keras,
    system_number,
)

from .folder import Run
from .identity import digest_of_weights, facts_of

READY, OVER, UNFIT, DIED = "ready", "over", "unfit", "died"  # what is heard of a worker
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # of a worker's disk, not of the run


@dataclass(frozen=True)
class Task:
    """What all runs of a sweep share, and each worker is started with.

    main: the function, or its pickle. facts: as `facts_of` makes them. weights: name → digest;
    none where main needs no model. fallback: the weights of options that name none. environment:
    variables of the workers' processes. place: the folder that relative paths start from.
    """

    main: Callable | bytes
    facts: Mapping[str, Any]
    weights: Mapping[str, str] = field(default_factory=dict)
    fallback: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    place: str = "."


class News(NamedTuple):
    """What is heard of a worker. error: why it is unfit or died, or what the run failed with, with
    its traceback; files: what the run wrote, where that was not into its part."""

    worker: int
    kind: str
    error: str = ""
    trace: str = ""
    files: Mapping[str, bytes] | None = None


def weights_of(options: Any, fallback: str | None) -> str | None:
    """The model that a run asks for."""
    return None if fallback is None else named(options).get("weights", fallback)


class Worker:
    """Computes one run after another.

    number: which of the workers it is. The model that the last run asked for stays, until another
    is asked for or the run taught it words, which no other run shall know.
    """

    def __init__(self, task: Task, number: int = 0):
        self.task, self.number = task, number
        self.main: Callable | None = None
        self.loaded: tuple | None = None
        self.sd = None

    def ready(self) -> News:
        """Ready, or unfit: without the model, with another one, or with other versions."""
        try:
            os.environ.update(self.task.environment)
            if Path(self.task.place).is_dir():
                os.chdir(self.task.place)
            with quiet():
                self.prepare()
        except (UsageError, ImportError, AttributeError) as error:
            return News(self.number, UNFIT, f"{platform.node()}: {line_of(error)}")
        return News(self.number, READY)

    def prepare(self) -> None:
        """Import what is needed. Raises UsageError, and ImportError where main is not here."""
        task, backend = self.task, None
        if task.weights:
            backend = chosen_backend()
            with native_stderr_closed():
                start_keras()
        self.main = task.main if callable(task.main) else pickle.loads(task.main)
        here, there = facts_of(self.main, backend)["versions"], task.facts["versions"]
        for name in there:
            if here.get(name) != there[name]:
                raise UsageError(f"{name} is {here.get(name)}, and {there[name]} in the sweep")
        for name, digest in task.weights.items():
            if digest_of_weights(name) != digest:
                raise UsageError(f"the weights {name} are others than where the sweep was started")

    def compute(self, run: Run, folder: Path) -> News:
        """A run, written into a folder: over, with or without an error, or unfit."""
        try:
            with quiet():
                self.save(run, folder)
        except (Exception, SystemExit) as error:
            if full := no_room(error):
                return News(self.number, UNFIT, f"{platform.node()}: cannot write: {full}")
            trace = "".join(traceback.format_exception(error))
            return News(self.number, OVER, line_of(error), trace)
        return News(self.number, OVER)

    def save(self, run: Run, folder: Path) -> None:
        asked, sd = named(run.options), self.model(run)
        started = time.monotonic()
        if isinstance(run.options, Options):
            check_guided(sd, run.options)
        options = with_folder(run.options, folder)
        more = {"run": {"hash": run.key, **self.task.facts}}
        if sd:
            more["run"]["weights"] = self.task.weights[asked.get("weights", self.task.fallback)]
        save_run(self.main, sd, options, folder, started, lambda: more)
        if sd and sd.learned:
            self.loaded = self.sd = None

    def model(self, run: Run) -> Any:
        """The model that a run asks for; None where it needs none."""
        name = weights_of(run.options, self.task.fallback)
        if name is None:
            return None
        asked = named(run.options)
        wanted = name, asked.get("precision", "float32"), asked.get("size")
        if self.loaded != wanted:
            self.loaded = self.sd = None  # before the next takes its memory
            self.sd, self.loaded = load_model(*wanted), wanted
        return self.sd


class Sender(Worker):
    """A worker on another machine: it writes into a folder of its own, and hands on the files."""

    def send(self, run: Run) -> News:
        try:
            with tempfile.TemporaryDirectory(prefix="sweep-") as scratch:
                news = self.compute(run, Path(scratch))
                if news.kind == OVER and not news.error:
                    return news._replace(files=files_of(Path(scratch)))
                return news
        except OSError as error:  # no room for the folder itself
            return News(self.number, UNFIT, f"{platform.node()}: {error.strerror}")


def with_folder(options: Any, folder: Path) -> Any:
    """Experiments are told where they may write."""
    return replace(options, folder=folder) if isinstance(options, Options) else options


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def quiet() -> Iterator[None]:
    """What a run prints is in its report; its bars would stand in that of the sweep."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def no_room(error: BaseException | None) -> str:
    """What a disk said that takes no more, where that lies behind an error; else nothing."""
    while error is not None:
        if (number := system_number(error)) in NO_ROOM:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return ""


def line_of(error: BaseException) -> str:
    """An error in a line."""
    said = on_one_line(" ".join(str(error).split()))
    return said if isinstance(error, UsageError) else f"{type(error).__name__}: {said}"
