"""Who computes what next: retries, workers that die, workers that are unfit."""

import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tqdm import tqdm

from stable_diffusion_tf.errors import UsageError

from .folder import Run
from .pools import Pool
from .worker import DIED, OVER, READY, UNFIT, News

TRIES = 2  # of a run that fails
CRASHES = 5  # of a run under which its worker dies, be it innocent: another one takes the memory
STARTS = 3  # of a worker that dies before it is ready
PATIENCE = 300.0  # seconds in which nobody is ready, nor at work


class Outcome(NamedTuple):
    """A run that is over: finished, or failed for good with this error."""

    run: Run
    news: News


class Shift:
    """Hands runs to workers until none is left. It is as long as there are runs, and goes over
    their outcomes as they come. Raises UsageError where no worker is left."""

    def __init__(self, runs: Sequence[Run], pool: Pool):
        self.runs, self.pool = runs, pool
        self.waiting, self.free = deque(runs), deque()
        self.busy: dict[int, Run] = {}
        self.retired: dict[int, str] = {}  # worker → why
        self.failures, self.crashes, self.starts = Counter(), Counter(), Counter()
        self.heard = time.monotonic()

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Outcome]:
        while self.waiting or self.busy:
            self.hand_out()
            for news in self.pool.news():
                self.heard = time.monotonic()
                if news.worker not in self.retired:
                    yield from ANSWERS[news.kind](self, news)
            self.check_anybody()

    def hand_out(self) -> None:
        while self.waiting and self.free:
            worker, run = self.free.popleft(), self.waiting.popleft()
            self.busy[worker] = run
            self.pool.give(worker, run)

    def when_ready(self, news: News) -> Sequence[Outcome]:
        self.starts[news.worker] = 0
        self.free.append(news.worker)
        return ()

    def when_over(self, news: News) -> Sequence[Outcome]:
        run = self.busy.pop(news.worker)
        self.free.append(news.worker)
        return self.again_or_over(run, news, self.failures, TRIES)

    def when_died(self, news: News) -> Sequence[Outcome]:
        run = self.busy.pop(news.worker, None)
        self.starts[news.worker] += run is None
        if self.starts[news.worker] < STARTS:
            self.pool.revive(news.worker)
        else:
            self.retire(news, f"{news.error} while it started, {STARTS} times")
        return self.again_or_over(run, news, self.crashes, CRASHES) if run else ()

    def when_unfit(self, news: News) -> Sequence[Outcome]:
        """What it was given is done by another, and counts as no failure of the run."""
        if run := self.busy.pop(news.worker, None):
            self.waiting.appendleft(run)
        self.retire(news, news.error)
        return ()

    def again_or_over(self, run: Run, news: News, count: Counter, most: int) -> Sequence[Outcome]:
        """A run that failed comes last, so that another worker may have it by then."""
        count[run.key] += bool(news.error)
        if not news.error or count[run.key] == most:
            return (Outcome(run, news),)
        self.waiting.append(run)
        return ()

    def retire(self, news: News, why: str) -> None:
        self.retired[news.worker] = why
        if sys.stderr:
            tqdm.write(f"a worker less: {why}", sys.stderr)

    def check_anybody(self) -> None:
        """Raises UsageError where runs wait and nobody is left, or heard of."""
        if not self.waiting or self.free or self.busy:
            return
        if len(self.retired) == self.pool.workers:
            why = [*self.retired.values()][-1]
            raise UsageError(f"no worker can go on: {why}; put it right and give the same command")
        if time.monotonic() - self.heard > PATIENCE:
            raise UsageError(
                f"no worker has been there for {PATIENCE:.0f} s; start machines for them, and give "
                "the same command"
            )


ANSWERS = {
    READY: Shift.when_ready,
    OVER: Shift.when_over,
    DIED: Shift.when_died,
    UNFIT: Shift.when_unfit,
}
