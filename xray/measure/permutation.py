"""Do the members of a group lie nearer each other than to the rest, and nearer than by chance?"""

from typing import NamedTuple

import numpy as np

SHUFFLES = 1000


class Nearness(NamedTuple):
    """How near each member is to its own group and to the others, the mean of cosines, (n,); and
    the mean of their difference for groups drawn by lot, (shuffles,)."""

    own: np.ndarray
    others: np.ndarray
    by_lot: np.ndarray

    @property
    def more(self) -> np.ndarray:
        return self.own - self.others

    @property
    def chance(self) -> float:
        """How often groups drawn by lot are as close; never 0, as the true ones are counted."""
        return (1 + np.sum(self.by_lot >= self.more.mean() - 1e-12)) / (1 + len(self.by_lot))

    @property
    def interval(self) -> tuple[float, float]:
        """Where 95 of 100 groups drawn by lot are."""
        return tuple(np.quantile(self.by_lot, (0.025, 0.975)))


def compare(
    cosines: np.ndarray, labels: np.ndarray, strata: np.ndarray, rng: np.random.Generator
) -> Nearness:
    """Members with their cosines (n, n) and groups (n,), against groups of the same sizes drawn by
    lot: a permutation test (Fisher, The Design of Experiments, 1935, section 21). Groups are
    exchanged only between members of one stratum (n,), so that what goes with the stratum is no
    merit of the groups. No group may have a single member."""
    lots = np.tile(labels, (SHUFFLES, 1))
    for stratum in np.unique(strata):
        inside = strata == stratum
        lots[:, inside] = rng.permuted(lots[:, inside], axis=1)
    own, others = near(cosines, lots)
    return Nearness(*near(cosines, labels), (own - others).mean(1))


def near(cosines: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each member's mean cosine with its own group (itself aside) and with the others:
    (n, n), (…, n) → (…, n), (…, n)."""
    same = labels[..., :, None] == labels[..., None, :]
    own, others = same & ~np.eye(len(cosines), dtype=bool), ~same
    return tuple((cosines * some).sum(-1) / some.sum(-1) for some in (own, others))
