"""How far rounding alone reaches on this machine, and whether a difference is more than that.

A library picks its kernels by the shape of the work and by the place of a row in it, so one piece
of work ends in other last bits in another row, in a batch of another size, or in a function that
was compiled with something in between. Only the same compiled function with the same shape gives
the same bits in the same row. All else is held against the rounding floor: how far the results of
one and the same work are apart.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stable_diffusion_tf.sampling import Step, walk
from xray.measure import gap, parting

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

# A floor is the largest of the few differences that were looked at, and the next draw may exceed
# it: of one and the same picture, by up to five times in the runs measured here. Ten floors of a
# whole run are 7e-4 of a latent at most; a wrong row or weight moves it by 1e-3 to 1.
MARGIN = 10
ULP = float(np.finfo(np.float32).eps)  # the last bit of a float32, as a share of the value


class Held(NamedTuple):
    """A difference, and how far rounding reaches here: max|a − b|, in the unit of the values."""

    difference: float
    reaches: float

    @property
    def passed(self) -> bool:
        return self.difference <= MARGIN * self.reaches

    def __str__(self) -> str:
        if not self.difference:
            return "the same bits"
        return (
            f"differs by {self.difference:.2g}; rounding on this machine reaches {self.reaches:.2g}"
        )


def spread(same: np.ndarray | Sequence[np.ndarray]) -> float:
    """How far the results of one piece of work, (n, …), are apart: the largest of max|a − b|. Where
    they are equal, the last bit of the largest value, as float32 tells no more."""
    same = np.asarray(same)
    apart = gap(same, np.broadcast_to(same[:1], same.shape)).max()
    return max(float(apart), ULP * float(np.abs(same[0]).max()))


def hold(made: np.ndarray, expected: np.ndarray, same: np.ndarray | Sequence[np.ndarray]) -> Held:
    """Two arrays of one shape that only rounding may tell apart, against the spread of the results
    of one piece of such work, (n, …), in several rows or batches."""
    return Held(float(gap(made, expected).max()), spread(same))


def hold_all(twins: Sequence[np.ndarray]) -> Held:
    """Whether several pieces of work end alike: for each, its results in two rows that differ by a
    last bit at first, (2, …). The first row is held against that of the first piece."""
    apart = max(float(gap(one[0], twins[0][0]).max()) for one in twins)
    return Held(apart, max(spread(one) for one in twins))


# --- runs --------------------------------------------------------------------------------------

# Steps amplify what the first one rounds, a picture on the edge between two many times more than
# another: so the pictures are the same ones. Where a library treats all rows but the last alike, a
# start that is off by a last bit makes each of them show what it amplifies.


def nudged(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each value off by one last bit, up or down, or as it is."""
    ways = np.random.default_rng(seed).choice(np.float32([-1, 0, 1]), x.shape)
    return x + ways * np.spacing(np.abs(x))


class FreshNoise:
    """A random generator that hands the noise of a run's pictures to other rows of another batch.

    batch: of the run; rows: which of its pictures stands in each row.
    """

    def __init__(self, seed: int, batch: int, rows: Sequence[int]) -> None:
        self.rng, self.batch, self.rows = np.random.default_rng([seed, 1]), batch, rows

    def standard_normal(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self.rng.standard_normal((self.batch, *shape[1:]), dtype=dtype)[self.rows]


def rerun(
    sd: "StableDiffusion",
    contexts: np.ndarray,
    x: np.ndarray,
    run: dict[str, Any],
    rows: Sequence[int],
    seen: Sequence[np.ndarray],
) -> list[Step]:
    """The steps of a run with its pictures in other rows: rows tells which stands in each, seen
    where each row starts, (rows, h, w, c); other arguments as for `drawing.draw`."""
    rows, uncond = [*rows], np.broadcast_to(run["uncond"], contexts.shape)
    rng = FreshNoise(run.get("seed", 0), len(x), rows)
    asked = run["steps"], run["guidance"], run.get("eta", 0.0)
    sampler = sd.sampler(contexts[rows], uncond[rows], *asked, rng)
    return [*walk(sampler, seen, range(run["steps"]))]


def redrawn(
    sd: "StableDiffusion", contexts: np.ndarray, noise: np.ndarray, run: dict
) -> np.ndarray:
    """Where the same runs end from the last row of the batch to the first, each from a start that
    is off by a last bit, in the order in which they were given; arguments as for `drawing.draw`."""
    rows = range(len(noise))[::-1]
    return rerun(sd, contexts, noise, run, rows, nudged(noise)[::-1])[-1].x_prev[::-1]


def twin_runs(
    sd: "StableDiffusion", context: np.ndarray, latent: np.ndarray, run: dict[str, Any]
) -> list[list[Step]]:
    """The steps of a run alone, and as all rows of a batch of three, two of which start one last
    bit off. context: (1, 77, width); latent: (1, h, w, c)."""
    batch = np.concatenate([latent, nudged(latent, 1), nudged(latent, 2)])
    starts = {(0,): latent, (0, 0, 0): batch}
    return [rerun(sd, context, latent, run, *start) for start in starts.items()]


def floor_of_runs(runs: Sequence[Sequence[Step]], names: Sequence[str]) -> float:
    """How far rounding reaches in twin runs, as a share of what the value amounts to: the largest
    over all steps and these fields of theirs."""
    alone, *others = runs
    found = [ULP]
    for other in others:
        for one, twin in zip(alone, other, strict=True):
            found += [parting(row, getattr(one, n)[0]) for n in names for row in getattr(twin, n)]
    return max(found)
