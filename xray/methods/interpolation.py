"""From one array to another in small steps, and how the pictures go along."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from xray.measure import distance, standard_error
from xray.tensor_debug import lerp, slerp

WAYS = {"straight": lerp, "on the sphere": slerp}


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


def largest_step(along: Along) -> tuple[np.ndarray, np.ndarray]:
    """The largest of the steps of each way, (b,): which, from 0, and what part of the whole way it
    is; of even steps, each is one over their number."""
    steps = along.from_last[1:]
    return steps.argmax(0), steps.max(0) / steps.sum(0)


def jumps(part: np.ndarray, points: int) -> bool:
    """Whether the largest steps of some ways, (b,), are beyond twice an even one, by two standard
    errors. The largest of steps that vary by chance is somewhat beyond one."""
    return bool(part.mean() - 2 * standard_error(part) > 2 / (points - 1))
