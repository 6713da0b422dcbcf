"""From one array to another in small steps, and how the pictures go along."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from xray.measure import distance
from xray.tensor_debug import lerp, slerp

MOST = 0.9  # of a way
WAYS = {"lerp": lerp, "slerp": slerp}


class Along(NamedTuple):
    """How far the points of a way are, (points, b) each: root mean square differences."""

    from_a: np.ndarray
    from_b: np.ndarray
    from_last: np.ndarray  # the point before; of the first there is none: NaN


def shares_of(points: int) -> list[float]:
    """Even ones, both ends included, such that they halve at the middle of an odd number."""
    return np.linspace(0, 1, points).tolist()


def walk(a: np.ndarray, b: np.ndarray, way: Callable, shares: Sequence[float]) -> np.ndarray:
    """The points of a way from a to b, each taken as one vector: (points, *a.shape)."""
    return np.stack([way(a, b, share) for share in shares])


def walk_tokens(a: np.ndarray, b: np.ndarray, way: Callable, shares: Sequence[float]) -> np.ndarray:
    """Each token's vector on a way of its own: (77, width) twice → (points, 77, width)."""
    pairs = zip(a, b, strict=True)
    return np.stack([walk(one, other, way, shares) for one, other in pairs], axis=1)


def measure_along(x: np.ndarray) -> Along:
    """How far the points (points, b, …) of b ways are from both ends and from the point before."""
    before = np.stack([np.full(x.shape[1], np.nan), *map(distance, x[1:], x[:-1])])
    ends = (np.stack([distance(one, end) for one in x]) for end in (x[0], x[-1]))
    return Along(*ends, before)


def parts_of(along: Along) -> np.ndarray:
    """What part of the whole way each step makes, (steps, b)."""
    return along.from_last[1:] / along.from_last[1:].sum(0)


def count_needed(parts: np.ndarray) -> np.ndarray:
    """How many steps, the largest first, make MOST of the way: (steps, …) → (…)."""
    made = np.cumsum(-np.sort(-parts, axis=0), axis=0)
    return 1 + (made < MOST - 1e-9).sum(0)


def needed_of_random_steps(steps: int, ways: int) -> np.ndarray:
    """How many steps of so many ways make MOST of them on average, if a way were a stick broken at
    random: 10,000 draws. Steps that vary by chance are far from even."""
    drawn = np.random.default_rng(0).dirichlet(np.ones(steps), (10_000, ways))
    return count_needed(np.moveaxis(drawn, -1, 0)).mean(-1)


def largest_of_shuffled_steps(parts: np.ndarray) -> np.ndarray:
    """A permutation null: what part the largest step makes on average, if each way's steps, (steps,
    ways), came in an order of their own: 10,000 shuffles, each → that part."""
    rng = np.random.default_rng(0)
    drawn = rng.permuted(np.broadcast_to(parts, (10_000, *parts.shape)), axis=1)
    return drawn.mean(-1).max(-1)
