"""`sweep`: a function over many options, each once, and all of it on disk."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from stable_diffusion_tf.arguments import place, whole
from stable_diffusion_tf.backend import choose_backend, chosen_backend
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.progress import progress_bar
from xray.report import Report
from xray.script import named

from .folder import (
    ASIDE,
    DONE,
    UNCONTROLLED,
    Run,
    add_to_plan,
    held,
    keep,
    left_of,
    make_part,
    set_aside,
    write_files,
)
from .identity import digest_of_weights, facts_of, key_of
from .index import write_index
from .on_ray import Actors
from .pools import Pool, Processes, Serial, pickled, workers_here
from .shift import Outcome, Shift
from .summary import write_summary
from .worker import Task, weights_of


class Swept(NamedTuple):
    """Where a sweep lies, how many of the runs that were asked for are finished, and how many were
    set aside with an error."""

    folder: Path
    finished: int
    failed: int


def sweep(
    main: Callable[[Any, Any], Report],
    options: Iterable[Any],
    *,
    out: str | Path,
    engine: str = "serial",
    weights: str | None = "phantom",
    backend: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    numbers: Sequence[str] = (),
    again: bool = False,
) -> Swept:
    """Compute `main(sd, one)` for each one of the options, once, and keep its Report.

    options: dataclasses, or mappings name → value; those equal to another one are left out. out: a
    folder, new or of the same sweep, which then goes on: what is finished there is not computed
    again. engine: 'serial', 'processes', or 'ray'. weights: of the model for options that name
    none; None: `main` needs no model and is handed None. backend: what Keras computes with; None is
    what KERAS_BACKEND says. workers: how many; None is one for each processor that has memory for
    it. address: of a Ray cluster, or 'auto'; None starts one on this machine. numbers: globs of
    those that the summary shows; by default the first few. again: runs that were set aside have
    another try.

    A run that fails twice, or under which five workers died, is set aside with its error, and the
    others go on. Raises UsageError, and KeyboardInterrupt where it was stopped; what was finished
    until then is kept, and the same call goes on from there.
    """
    folder, asked = place("out", out), checked(options)
    if workers is not None and whole("workers", workers, 2) < 1:
        raise UsageError(f"{workers} workers are too few; try 2")
    if engine not in ENGINES:
        raise UsageError(f"there is no engine {engine!r}; choose from {', '.join(ENGINES)}")
    if weights is not None:
        choose_backend(backend_of(asked, backend))
    names = dict.fromkeys(weights_of(one, weights) for one in asked)
    digests = {name: digest_of_weights(name) for name in names if name is not None}
    facts = facts_of(main, chosen_backend() if digests else None)
    runs = plan(asked, facts, digests, weights)
    with held(folder, facts):
        add_to_plan(folder, runs)
        try:
            if todo := left_of(folder, runs, again):
                task = Task(main, facts, digests, weights, place=os.getcwd())
                with closing(ENGINES[engine](task, todo, folder, workers, address)) as pool:
                    for outcome in progress_bar(Shift(todo, pool), "sweeping", "run"):
                        settle(outcome, folder)
        finally:
            states = write_index(folder)
        write_summary(folder, numbers)
    found = Counter(states[run.key] for run in runs)
    return Swept(folder, found[DONE] + found[UNCONTROLLED], found[ASIDE])


def checked(options: Iterable[Any]) -> list[Any]:
    """Raises UsageError where there is none, or one whose names are not known."""
    asked = list(options)
    if not asked:
        raise UsageError("there is nothing to run: no options were given; give one at least")
    for one in asked:
        if not isinstance(one, Mapping) and (isinstance(one, type) or not is_dataclass(one)):
            raise UsageError(f"{one!r:.60} has no names; give a dataclass, or name → value")
    return asked


def backend_of(asked: Sequence[Any], backend: str | None) -> str | None:
    """The one for all. Raises UsageError where the options name several."""
    told = {named(one).get("backend") or backend for one in asked}
    if len(told) > 1:
        raise UsageError(
            f"a sweep has one backend, and its options name {', '.join(map(str, told))}; make one "
            "sweep for each"
        )
    return told.pop()


def plan(
    asked: Sequence[Any],
    facts: Mapping[str, Any],
    digests: Mapping[str, str],
    weights: str | None,
) -> list[Run]:
    """Each run once."""
    found = {}
    for one in asked:
        name = weights_of(one, weights)
        key = key_of(facts, None if name is None else digests[name], one)
        found.setdefault(key, Run(key, one))
    return [*found.values()]


# --- the workers -------------------------------------------------------------------------------


def in_this_process(task: Task, todo: Sequence[Run], folder: Path, *_: Any) -> Pool:
    return Serial(task, partial(make_part, folder))


def in_processes(
    task: Task, todo: Sequence[Run], folder: Path, workers: int | None, address: str | None
) -> Pool:
    sent = replace(task, main=pickled(task.main, todo[0]))
    most = min(workers or workers_here(task), len(todo))
    return Processes(sent, partial(make_part, folder), most)


def on_ray(
    task: Task, todo: Sequence[Run], folder: Path, workers: int | None, address: str | None
) -> Pool:
    return Actors(task, min(workers or len(todo), len(todo)), address)


ENGINES = {"serial": in_this_process, "processes": in_processes, "ray": on_ray}


def settle(outcome: Outcome, folder: Path) -> None:
    run, news = outcome
    if news.error:
        set_aside(folder, run, news.error, news.trace)
        return
    if news.files is not None:
        write_files(make_part(folder, run.key), news.files)
    keep(folder, run.key)
