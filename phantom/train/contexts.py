"""Contexts of captions, and the end and padding of one put in place of another's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Contexts:
    """Contexts (n, 77, width), and where the end token of each stands, (n,); then comes padding."""

    vectors: np.ndarray
    ends: np.ndarray

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> "Contexts":
        return Contexts(self.vectors[rows], self.ends[rows])


def ends_of(ids: np.ndarray, end: int) -> np.ndarray:
    """Where the first end token of each row stands: (n, 77) → (n,)."""
    return np.argmax(ids == end, axis=1)


def with_padding_of(own: Contexts, other: Contexts) -> np.ndarray:
    """Contexts whose words are their own and whose end token and padding are the other's, counted
    from the end token on; where that padding is too short its last vector is repeated.
    (n, 77, width)."""
    place = np.arange(own.vectors.shape[1])
    after = place - own.ends[:, None]  # (n, 77), 0 at the end token
    from_other = np.clip(other.ends[:, None] + after, 0, len(place) - 1)[..., None]
    theirs = np.take_along_axis(other.vectors, from_other, axis=1)
    return np.where(after[..., None] >= 0, theirs, own.vectors)
