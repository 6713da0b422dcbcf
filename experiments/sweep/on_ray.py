"""Workers on Ray: actors on this machine, or on the machines of a cluster."""

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stable_diffusion_tf.errors import UsageError

from .folder import Run
from .pools import EVERY, with_environment
from .worker import DIED, News, Sender, Task

ROOT = Path(__file__).resolve().parents[2]
QUIET = {  # read when Ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # a worker that dies is told by the sweep, in one line
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
INSTALL = "pip install -r requirements-ray.txt"
WAIT = 10  # seconds for a cluster to answer


class Actors:
    """Each worker is an actor that keeps its model, and that Ray starts again wherever there is
    room when it or its machine dies. What it wrote comes back to this process, so that no disk
    needs to be shared."""

    def __init__(self, task: Task, workers: int, address: str | None):
        self.ray, self.ours = connect(address)
        room = int(self.ray.cluster_resources().get("CPU", 0))
        if not room:
            self.close()
            raise UsageError("the Ray cluster has no CPU for a worker; start a node that has")
        kind = self.ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=0)(Sender)
        pythonpath = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        variables = {"PYTHONPATH": pythonpath, **with_environment(task, 1).environment}
        kind = kind.options(runtime_env={"env_vars": variables})
        task = replace(task, main=self.ray.cloudpickle.dumps(task.main))
        self.workers = min(workers, room)
        self.actors = [kind.remote(task, number) for number in range(self.workers)]
        self.asked: dict[Any, int] = {}  # reference → worker
        for number in range(self.workers):
            self.revive(number)

    def revive(self, worker: int) -> None:
        """Whether it is ready: answered when it has started, be it again."""
        ready = self.actors[worker].ready.options(max_task_retries=-1)
        self.asked[ready.remote()] = worker

    def give(self, worker: int, run: Run) -> None:
        self.asked[self.actors[worker].send.remote(run)] = worker

    def news(self) -> Iterator[News]:
        heard, _ = self.ray.wait([*self.asked], timeout=EVERY)
        for reference in heard:
            worker = self.asked.pop(reference)
            try:
                yield self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                yield News(worker, DIED, f"its worker died ({type(error).__name__})")

    def close(self) -> None:
        for actor in getattr(self, "actors", ()):
            self.ray.kill(actor)
        if self.ours:
            self.ray.shutdown()


def connect(address: str | None) -> tuple[Any, bool]:
    """Ray, and whether it was started or connected to here. Raises UsageError where it is not
    installed, or no cluster answers."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UsageError(
            "Ray is not installed; type: pip install -r requirements-ray.txt"
        ) from None
    if ray.is_initialized():
        return ray, False
    where = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        check_answers(os.environ.get("RAY_ADDRESS") if address == "auto" else address)
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **where)
    except (OSError, ValueError, RuntimeError) as error:
        said = f"{address or 'this machine'} ({str(error).splitlines()[0]:.80})"
        raise UsageError(f"no Ray cluster answers at {said}; start one: ray start --head") from None
    return ray, True


def check_answers(address: str | None) -> None:
    """Raises OSError where nobody listens at host:port: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host, int(port)), WAIT).close()
