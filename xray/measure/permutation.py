"""Do the members of a group lie nearer each other than to the rest, and nearer than by chance?"""

from typing import NamedTuple

import numpy as np

from .estimates import Estimate, mean_of, p_value

SHUFFLES = 1000
ROUNDING = 1e-12  # shuffles that make the same groups again are as near, whatever their sum's order


class Nearness(NamedTuple):
    """How near each member is to its own group and to the others, the mean of cosines, (n,); the
    groups, (n,); and the difference where groups are shuffled, (shuffles, n), each column of the
    member's group."""

    own: np.ndarray
    others: np.ndarray
    groups: np.ndarray
    null: np.ndarray

    def as_row(self) -> dict[str, Estimate | float]:
        """As cells of a table."""
        means = {"own": float(self.own.mean()), "others": float(self.others.mean())}
        return means | {"difference": self.difference, "shuffled": self.shuffled, "p": self.p}

    def select(self, group: object) -> "Nearness":
        """Of one group alone."""
        inside = self.groups == group
        return Nearness(*(some[..., inside] for some in self))

    @property
    def difference(self) -> Estimate:
        """The mean; as members of a group are not independent, over groups, if there are two."""
        alone = len({*self.groups}) == 1
        return mean_of(self.own - self.others, cases=None if alone else self.groups)

    @property
    def shuffled(self) -> Estimate:
        """The mean difference of shuffled groups, and where 95 of 100 of them are."""
        means = self.null.mean(1)
        return Estimate(float(means.mean()), *np.quantile(means, (0.025, 0.975)), len(means))

    @property
    def closer(self) -> int:
        """How many of the shuffles are as near."""
        return int(np.sum(self.null.mean(1) >= self.difference.value - ROUNDING))

    @property
    def p(self) -> float:
        """How often shuffled groups are as near."""
        return p_value(self.difference.value - ROUNDING, self.null.mean(1))


def permutation_test(
    cosines: np.ndarray, groups: np.ndarray, strata: np.ndarray, seed: int
) -> Nearness:
    """Members with their cosines (n, n) and groups (n,), against groups of the same sizes by chance
    (Fisher, The Design of Experiments, 1935, section 21). Groups are shuffled only between members
    of one stratum (n,), so that what goes with the stratum is no merit of the groups. No group may
    have a single member."""
    rng, shuffled = np.random.default_rng(seed), np.tile(groups, (SHUFFLES, 1))
    for stratum in np.unique(strata):
        inside = strata == stratum
        shuffled[:, inside] = rng.permuted(shuffled[:, inside], axis=1)
    own, others = near(cosines, shuffled)
    null = np.empty_like(own)
    null[:, np.argsort(groups, kind="stable")] = np.take_along_axis(
        own - others, np.argsort(shuffled, axis=1, kind="stable"), axis=1
    )
    return Nearness(*near(cosines, groups), groups, null)


def near(cosines: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each member's mean cosine with its own group (itself aside) and with the others:
    (n, n), (…, n) → (…, n), (…, n)."""
    same = groups[..., :, None] == groups[..., None, :]
    own, others = same & ~np.eye(len(cosines), dtype=bool), ~same
    return tuple((cosines * some).sum(-1) / some.sum(-1) for some in (own, others))
