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

from .drawing import draw
from .measure import gap, parting

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

    from .film import Film

# A floor is the largest of the few differences that were looked at, and the next draw may exceed
# it: where two kinds of rounding meet (another row in another function), by two or three times.
# Ten floors of a whole run are 5e-4 of a latent at most; a wrong row or weight moves it by 1e-3
# to 1.
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


# --- runs --------------------------------------------------------------------------------------


class Twins:
    """A random generator that draws the noise of one picture for all of a batch."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def standard_normal(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.repeat(self.rng.standard_normal((1, *shape[1:]), dtype=dtype), shape[0], 0)


def twin_runs(
    sd: "StableDiffusion",
    context: np.ndarray,
    uncond: np.ndarray,
    latent: np.ndarray,
    run: dict[str, Any],
    batches: Sequence[int] = (1, 2),
) -> list[list[Step]]:
    """One run, alone and again as all rows of a batch: for each size of a batch its steps.

    context, uncond: (1, 77, width); latent: (1, h, w, c). run: steps, guidance, eta and seed, as in
    `sd.denoise`.
    """
    asked = [run[name] for name in ("steps", "guidance", "eta")]
    runs = []
    for batch in batches:
        contexts, x = (np.repeat(one, batch, 0) for one in (context, latent))
        sampler = sd.sampler(contexts, uncond, *asked, Twins(run["seed"], 1))
        runs.append([*walk(sampler, x, range(run["steps"]))])
    return runs


def floor_of_runs(runs: Sequence[Sequence[Step]], names: Sequence[str]) -> float:
    """How far rounding reaches in twin runs, as a share of what the value amounts to: the largest
    over all steps and these fields of theirs."""
    alone, *others = runs
    found = [ULP]
    for other in others:
        for one, twin in zip(alone, other, strict=True):
            found += [parting(row, getattr(one, n)[0]) for n in names for row in getattr(twin, n)]
    return max(found)


def rows_of_one(
    sd: "StableDiffusion", context: np.ndarray, latent: np.ndarray, run: dict, batch: int
) -> np.ndarray:
    """Where one run ends in every row of a batch, (batch, h, w, c); arguments as for
    `drawing.draw`, with one context and one latent."""
    return draw(sd, np.repeat(context, batch, 0), np.repeat(latent, batch, 0), run)


def unwatched(sd: "StableDiffusion", film: "Film") -> Held:
    """Where a film's run ends, beside the same run when nobody looks."""
    text, facts = film.text, film.facts
    runs = twin_runs(sd, text["context"], text["uncond"], film[0]["x"], facts)
    ends = [row for steps in runs for row in steps[-1].x_prev]
    return hold(film[len(film) - 1]["x_prev"][0], ends[0], ends)
