"""Workers behind one interface: in this process, or each in a process of its own."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.machine import memory, processors

from .folder import Run
from .identity import bytes_of_weights
from .worker import DIED, OVER, READY, News, Task, Worker

EVERY = 1.0  # seconds that nothing may be heard for
BASE, COPIES = 1e9, 2  # bytes of a worker without its model, and how often it holds the weights

Place = Callable[[str], Path]  # a run's hash → the folder for it to write into, new and empty


class Pool(Protocol):
    """Workers, by their numbers. One has to be heard to be ready before it is given a run, and is
    heard of again when that is over. One that died may be revived."""

    workers: int

    def give(self, worker: int, run: Run) -> None: ...

    def news(self) -> Iterator[News]:
        """What has happened since; nothing after a second in which nothing has."""

    def revive(self, worker: int) -> None: ...

    def close(self) -> None: ...


class Serial:
    """One worker, which is this process."""

    workers = 1

    def __init__(self, task: Task, place: Place):
        self.worker, self.place = Worker(task), place
        self.run: Run | None = None
        self.begun = False

    def give(self, worker: int, run: Run) -> None:
        self.run = run

    def news(self) -> Iterator[News]:
        if not self.begun:
            self.begun = True
            yield self.worker.ready()
        elif self.run:
            run, self.run = self.run, None
            yield self.worker.compute(run, self.place(run.key))

    def revive(self, worker: int) -> None:
        pass

    def close(self) -> None:
        pass


# --- processes ---------------------------------------------------------------------------------


class Processes:
    """Each worker is a process."""

    def __init__(self, task: Task, place: Place, workers: int):
        self.task, self.place = with_environment(task, processors() // workers), place
        self.workers = workers
        self.spawn = multiprocessing.get_context("spawn")
        self.ends: dict[int, Connection] = {}
        self.processes: dict[int, multiprocessing.process.BaseProcess] = {}
        for number in range(workers):
            self.revive(number)

    def revive(self, worker: int) -> None:
        ours, theirs = self.spawn.Pipe()
        process = self.spawn.Process(target=serve, args=(theirs, self.task, worker), daemon=True)
        with environment(self.task.environment):
            process.start()
        theirs.close()  # or the end of the process would not be the end of the pipe
        self.ends[worker], self.processes[worker] = ours, process

    def give(self, worker: int, run: Run) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died, which is heard next
            self.ends[worker].send((run, self.place(run.key)))

    def news(self) -> Iterator[News]:
        numbers = {end: number for number, end in self.ends.items()}
        for end in wait([*numbers], EVERY):
            try:
                yield end.recv()
            except (EOFError, ConnectionResetError):
                yield self.bury(numbers[end])

    def bury(self, number: int) -> News:
        process = self.processes[number]
        process.join()
        self.ends.pop(number).close()
        return News(number, DIED, how_it_ended(process.exitcode))

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.join()


def serve(end: Connection, task: Task, number: int) -> None:
    """The life of a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this one
    threading.Thread(target=end_with_parent, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what libraries write past Python
        os.dup2(nowhere, descriptor)
    worker = Worker(task, number)
    news = worker.ready()
    end.send(news)
    while news.kind == READY or news.kind == OVER:
        try:
            run, folder = end.recv()
        except EOFError:
            return
        news = worker.compute(run, folder)
        end.send(news)
    threading.Event().wait()  # unfit, until the parent ends it


def end_with_parent() -> None:
    """A parent that is killed takes this process with it, in the middle of a run too."""
    multiprocessing.parent_process().join()
    os._exit(1)


def how_it_ended(status: int | None) -> str:
    if status is not None and status < 0:
        return f"its worker was ended by {signal.Signals(-status).name}"
    return f"its worker ended with status {status}"


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables that what is started inside begins with."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def with_environment(task: Task, threads: int) -> Task:
    """Workers know the backend before they import Keras, and share the processors, of which each
    would take all; what the user has set stays."""
    each = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), str(max(1, threads)))
    made = {name: os.environ.get(name, value) for name, value in each.items()}
    if task.facts["backend"]:
        made["KERAS_BACKEND"] = task.facts["backend"]
    return replace(task, environment={**task.environment, **made})


def workers_here(task: Task) -> int:
    """As many as there are processors, or as their models fit into memory."""
    free = memory().available
    if not task.weights or free is None:
        return processors()
    each = BASE + COPIES * max(map(bytes_of_weights, task.weights))
    return max(1, min(processors(), int(free // each)))


def pickled(main: Callable, run: Run) -> bytes:
    """main, for workers who import it. Raises UsageError where they could not."""
    try:
        pickle.dumps(run.options)
        return pickle.dumps(main)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{main.__qualname__} and its options cannot be handed to another process ({error}); "
            "put them at the top of a module, or take --engine serial"
        ) from None
