"""What calls cost: seconds by the clock, bytes as this process has held them."""

import math
import statistics
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from stable_diffusion_tf.compiled import Call
from stable_diffusion_tf.machine import peak_memory, return_free_memory
from stable_diffusion_tf.progress import in_words

from .rehearsal import Key, Rehearsal, key_of

LAST = 25  # calls of a kind whose time is kept
FIGURE = 50e6  # bytes that a figure and its report take when all calls are made
MUCH = 0.1  # of the whole: calls that take so large a share are timed themselves


class Cost(NamedTuple):
    """Of a whole run. bytes: None where the system does not say; whole: whether all calls are
    known."""

    seconds: float
    bytes: float | None
    whole: bool = True

    def __str__(self) -> str:
        taken = f"{'about' if self.whole else 'over'} {in_words(self.seconds)}"
        return taken if self.bytes is None else f"{taken}, {self.bytes / 1e9:.1f} GB"

    def facts(self) -> dict[str, float | None]:
        """As a report has its own, under the same names."""
        peak = None if self.bytes is None else round(self.bytes / 1e9, 2)
        return {"seconds": round(self.seconds, 3), "peak_gb": peak}


class Times:
    """What calls of each kind took, the first of a kind, which compiles, apart from the others."""

    def __init__(self):
        self.first: dict[Key, float] = {}
        self.later: defaultdict[Key, deque[float]] = defaultdict(lambda: deque(maxlen=LAST))

    def take(self, call: Call) -> Any:
        """Make the call, and note how long it takes."""
        key, started = key_of(call), time.perf_counter()
        made = call.compute(*call.arrays)
        self.note(key, time.perf_counter() - started)
        return made

    def note(self, key: Key, seconds: float) -> None:
        if key in self.first:
            self.later[key].append(seconds)
        else:
            self.first[key] = seconds

    def known(self, key: Key) -> int:
        """How many calls of a kind have been timed, the last ones and the first."""
        return (key in self.first) + len(self.later[key])

    def of(self, key: Key) -> float:
        """Seconds of a call that compiles nothing: as such calls took, or by its size as another of
        this network did; 0 where none is known."""
        if self.later[key]:
            return statistics.median(self.later[key])
        near = [other for other, taken in self.later.items() if taken and alike(key, other)]
        if not near:
            return self.first.get(key, 0.0)
        other = min(near, key=lambda one: abs(math.log(one.size / key.size)))
        return statistics.median(self.later[other]) * key.size / other.size

    def compiling(self, key: Key) -> float:
        """Seconds that the first call of a kind takes beyond the others."""
        known = key if key in self.first else next((k for k in self.first if alike(key, k)), None)
        return 0.0 if known is None else max(0.0, self.first[known] - self.of(known))


def alike(key: Key, other: Key) -> bool:
    """Whether calls are of one network, in one direction: the VAE's two halves share a name."""
    return key.network == other.network and key.shapes[0][-1] == other.shapes[0][-1]


def seconds_of(counts: Mapping[Key, int], times: Times, compiled: Collection[Key] = ()) -> float:
    """What so many calls take; those of some kinds are compiled already."""
    calls = sum(n * times.of(key) for key, n in counts.items())
    return calls + sum(times.compiling(key) for key in counts if key not in compiled)


def measure(found: Rehearsal, times: Times) -> None:
    """Make true calls of the kinds that matter, so that their time and memory are known: of each
    network the largest, those that most numbers go through, and all with a large share of the
    whole. The UNet comes last, as what others took is free again by then."""
    for weight in (lambda key: key.size, lambda key: found.counts[key] * key.size):
        heaviest = {
            (key.network, key.shapes[0][-1]): key for key in sorted(found.counts, key=weight)
        }
        time_all(heaviest.values(), found, times)
    total = seconds_of(found.counts, times)
    much = [key for key, n in found.counts.items() if n * times.of(key) > MUCH * total]
    time_all(much, found, times)


def time_all(keys: Iterable[Key], found: Rehearsal, times: Times) -> None:
    for key in sorted(keys, key=lambda key: key.network == "unet"):
        while times.known(key) < min(2, found.counts[key]):
            times.take(found.calls[key])
        return_free_memory()


def cost_of(
    found: Rehearsal, times: Times, spent: float = 0.0, done: Mapping[Key, int] | None = None
) -> Cost:
    """Of a run whose calls are known. spent: the seconds of it that are over, in which all was
    compiled that was timed; done: the calls of it that are made. None: it has not begun.

    Between its calls it takes as long as its rehearsal did. Bytes are what this process has held,
    by what the largest call to come is larger than any until now, and the figure.
    """
    left = found.counts if done is None else Counter(found.counts) - Counter(done)
    calls = seconds_of(left, times, () if done is None else times.first)
    held, more = peak_memory(), 0
    for key, needed in found.needed.items():
        made = [found.needed[one] for one in times.first if one in found.needed and alike(key, one)]
        more = max(more, needed - max(made, default=0))
    return Cost(spent + found.between + calls, held and held + more + FIGURE, found.stopped is None)
