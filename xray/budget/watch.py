"""The watch over an experiment: it times the calls, looks ahead, says what is to come, refuses.

A model whose parts are large is looked at before its work. With a small one most runs are over in
less time than that would take: there the run itself is what is timed, and only one that has lasted
a while is looked ahead, for a small share of the time that it has taken.
"""

import gc
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Generic

from stable_diffusion_tf.compiled import Call, calls_go_through
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.machine import return_free_memory
from stable_diffusion_tf.pipeline import LARGE
from stable_diffusion_tf.progress import in_words, whole_run

from .choice import Asked, as_typed, first_that, shrunk, smaller
from .cost import Cost, Times, cost_of, measure, seconds_of
from .rehearsal import (
    Key,
    NoRoom,
    OutOfPatience,
    Rehearsal,
    Shapes,
    check_room,
    key_of,
    least_bytes,
    rehearse,
    rows_of,
)

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

LONG = 60.0  # seconds; of a shorter run nothing is said
GRACE = 20.0  # seconds of a run of a small model before anybody looks ahead
AGAIN = 3.0  # times as late is the next look, where the last was broken off
SHARE = 0.04  # of the time that a run has taken, for a look ahead


class Watch(Generic[Asked]):
    """Takes the place of who calls the networks. asked: the options, smaller ones where the budget
    was too short for all."""

    def __init__(
        self,
        main: Callable[..., Any],
        sd: "StableDiffusion",
        asked: Asked,
        started: float,
    ):
        self.main, self.sd, self.asked, self.started = main, sd, asked, started
        self.times, self.shapes = Times(), Shapes()
        self.done: Counter[Key] = Counter()
        self.next_look = GRACE
        self.plan: Rehearsal | None = None  # of a long run, before it begins
        self.foretold: Cost | None = None  # of the whole run, where it was looked at before
        self.foreseen: dict[Key, float] = {}
        self.advance: Callable[[float], None] = lambda seconds: None
        self.around = ExitStack()

    @property
    def long(self) -> bool:
        """Whether the run is known to be one of over LONG seconds."""
        return bool(self.foreseen)

    def spent(self) -> float:
        return time.monotonic() - self.started

    # --- while it runs -------------------------------------------------------------------------

    def __call__(self, call: Call) -> Any:
        key = key_of(call)
        if key not in self.done:
            self.look_at_room(call)
        if self.spent() >= self.next_look:
            self.look_on()
        made = self.times.take(call)
        self.shapes.note(call, made)
        self.count(key)
        return made

    def pass_over(self, call: Call) -> None:
        """A call that was made before: there is nothing to time, and it is done."""
        self.count(key_of(call))

    def count(self, key: Key) -> None:
        self.done[key] += 1
        self.advance(self.foreseen.get(key, 0.0))

    def facts(self) -> dict[str, dict[str, float | None]]:
        """What a report tells of the calls: how many rows went through each network, and what was
        foretold of the run before it. A picture's two halves of guidance are two rows."""
        rows = Counter()
        for key, n in self.done.items():
            rows[key.network] += n * rows_of(key)
        told = {"evaluations": {**rows}}
        return told | ({"foretold": self.foretold.facts()} if self.foretold else {})

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, the watch is kept."""
        with self.around, calls_go_through(self):
            if self.plan:
                self.begin_progress(self.plan)
            yield

    def look_at_room(self, call: Call) -> None:
        try:
            check_room(least_bytes(self.sd, call))
        except NoRoom as error:
            raise self.refusal(error) from None

    def look_on(self) -> None:
        """Look ahead in the midst of a run, and tell it from there on if it is long."""
        spent = self.spent()
        found = self.rehearse(self.asked, SHARE * spent)
        late = isinstance(found.stopped, OutOfPatience)
        self.next_look = AGAIN * spent if late else math.inf
        cost = cost_of(found, self.times, spent, self.done)
        if not late and cost.seconds >= LONG:
            say(self.sentence(cost))
            self.begin_progress(found)

    # --- before it runs ------------------------------------------------------------------------

    def look_ahead(self, limit: float | None) -> None:
        """Look ahead before the work, where it is worth it or a limit in seconds is given; the
        options are then as small as the limit asks. Raises UsageError where nothing fits."""
        if limit is None and not is_large(self.sd):
            return
        self.next_look = math.inf
        found = self.rehearse(self.asked)
        if isinstance(found.stopped, UsageError):
            return  # the run will tell what is wrong
        measure(found, self.times)
        cost = cost_of(found, self.times, self.spent(), {})
        if limit is not None:
            cost, found = self.choose(cost, found, limit)
        elif cost.seconds >= LONG:
            say(self.sentence(cost))
        self.foretold = cost
        self.plan = found if cost.seconds >= LONG else None
        found.calls.clear()  # which hold networks that the run loads anew or is to give back
        gc.collect()  # as they refer to themselves
        return_free_memory()

    def choose(self, cost: Cost, found: Rehearsal, limit: float) -> tuple[Cost, Rehearsal]:
        """The largest options that are over in so many seconds, and what they cost."""
        if cost.seconds <= limit:
            say(str(cost))
            return cost, found
        costs: dict[Asked, tuple[Cost, Rehearsal]] = {}

        def fits(asked: Asked) -> bool:
            found = self.rehearse(asked)
            costs[asked] = cost_of(found, self.times, self.spent(), {}), found
            return costs[asked][0].seconds <= limit

        options = smaller(self.asked)
        chosen = first_that(fits, options)
        if chosen is None:
            least = costs[options[-1]][0] if options else cost
            what = f"{as_typed(options[-1], self.asked)}, the least," if options else "it"
            raise UsageError(
                f"{what} takes {least}; try --budget {in_budget(least.seconds)} or more"
            )
        say(f"{as_typed(chosen, self.asked)}: {costs[chosen][0]}")
        self.asked = chosen
        return costs[chosen]

    def rehearse(self, asked: Asked, patience: float = math.inf) -> Rehearsal:
        """The calls of a run with these options. Raises UsageError where one does not fit."""
        found = rehearse(self.main, self.sd, asked, self.shapes, patience)
        if isinstance(found.stopped, NoRoom):
            raise self.refusal(found.stopped)
        return found

    def refusal(self, error: NoRoom) -> UsageError:
        def fits(asked: Asked) -> bool:
            found = rehearse(self.main, self.sd, asked, self.shapes)
            return not isinstance(found.stopped, NoRoom)

        less = first_that(fits, smaller(self.asked))
        hint = f"try {as_typed(less, self.asked)}" if less else "free some, or name other --weights"
        return UsageError(f"this run takes {error}; {hint}")

    # --- what is said --------------------------------------------------------------------------

    def sentence(self, cost: Cost) -> str:
        """What the run costs, and what a smaller one would."""
        half = shrunk(self.asked, 0.5)
        if half == self.asked:
            return str(cost)
        less = cost_of(self.rehearse(half), self.times)
        return f"{cost}; {as_typed(half, self.asked)} would take {in_words(less.seconds)}"

    def begin_progress(self, found: Rehearsal) -> None:
        """From here on the run is told as a whole, and no part of it alone."""
        left = Counter(found.counts) - self.done
        self.foreseen = {key: self.times.of(key) for key in left}
        told = whole_run(max(1.0, seconds_of(left, self.times, left)))
        self.advance = self.around.enter_context(told)


def say(line: str) -> None:
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


def is_large(sd: "StableDiffusion") -> bool:
    """Whether the UNet's weights are so large that a look ahead is nothing beside its work."""
    try:
        shapes = sd.checkpoint.source("unet").shapes().values()
    except UsageError:  # which whoever needs it will be told
        return False
    return sd.weight_bytes("unet") * sum(map(math.prod, shapes)) > LARGE


def in_budget(seconds: float) -> str:
    """As --budget takes it, rounded up."""
    return f"{-(-seconds // 60):.0f}min" if seconds > 90 else f"{-(-seconds // 1):.0f}s"
