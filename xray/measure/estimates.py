"""A number, and how sure it is."""

from typing import NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError

Z95 = 1.959964  # of 95 of 100 Gaussian values the absolute value is below
RESAMPLES = 2000
COUNTED = "of"  # the unit of a share that is told as a count


class Estimate(NamedTuple):
    """A value with its 95 % interval, from n independent cases: `25.3 dB [24.9, 25.8]`; a share is
    told as a count, `7 of 8 [53, 98 %]`. The interval of a single case is not known: NaN."""

    value: float
    low: float
    high: float
    n: int
    unit: str = ""

    def __str__(self) -> str:
        if self.unit == COUNTED:
            return f"{self.short} [{100 * self.low:.0f}, {100 * self.high:.0f} %]"
        if np.isnan(self.low) or np.isnan(self.high):
            return self.short
        low, high = (round_like(end, self.width) for end in (self.low, self.high))
        return f"{self.short} [{low}, {high}]"

    def of(self, cases: str) -> str:
        """As a sentence has it: `7 of 8 pictures [53, 98 %]`."""
        return f"{self.short} {cases}{str(self).removeprefix(self.short)}"

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def short(self) -> str:
        """Without the interval: `25.3 dB`, `7 of 8`."""
        if self.unit == COUNTED:
            return f"{round(self.value * self.n)} of {self.n}"
        return f"{round_like(self.value, self.width)} {self.unit}".rstrip()

    @property
    def side(self) -> str:
        """On which side of zero the whole interval is, as a sentence has it."""
        return "above" if self.low > 0 else "below" if self.high < 0 else "not clearly other than"

    def clears(self, margin: float) -> bool:
        """Whether the whole interval is beyond the margin, above a positive one or below a
        negative one; never where the interval is not known."""
        return bool(self.low > margin if margin >= 0 else self.high < margin)

    def within(self, margin: float) -> bool:
        """Whether the whole interval lies inside ± margin: equality up to a margin named
        beforehand (two one-sided tests; Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987)."""
        return bool(-margin < self.low and self.high < margin)


def round_like(value: float, width: float) -> str:
    """A value with as many digits as its interval's width leaves sure, two of the width's; three
    digits where no interval is known."""
    if not (np.isfinite(value) and np.isfinite(width) and width > 0):
        return f"{value:.3g}"
    digits = 1 - int(np.floor(np.log10(width)))
    return f"{value:.{min(max(digits, 0), 6)}f}" if digits < 7 else f"{value:.1e}"


def share_of(hits: np.ndarray) -> Estimate:
    """How many of n independent cases are so, hits (n,) bool, with Wilson's interval (J. Am. Stat.
    Assoc. 22, 1927, p. 209), which is right for 0 of n and n of n too. Raises UsageError where
    there is no case."""
    hits = np.asarray(hits, bool).ravel()
    n = check_some(hits)
    p, z2 = hits.mean(), Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    return Estimate(
        float(p), float(max(0, middle - half)), float(min(1, middle + half)), n, COUNTED
    )


def mean_of(values: np.ndarray, unit: str = "", cases: np.ndarray | None = None) -> Estimate:
    """The mean of values (m,), with the interval of its bootstrap: percentiles over resamples of
    the n independent cases, widened by √(n/(n − 1))·t/z, as resamples of few vary too little
    (Hesterberg, Am. Stat. 69, 2015, section 3.2). cases: which case each value belongs to, (m,),
    as two words of one scene do; None: each value is one. Raises UsageError where there is none."""
    values = np.asarray(values, np.float64).ravel()
    check_some(values)
    of = np.arange(values.size) if cases is None else np.unique(cases, return_inverse=True)[1]
    sums, counts = np.bincount(of, values), np.bincount(of)
    n, mean = len(sums), float(values.mean())
    if n == 1:
        return Estimate(mean, np.nan, np.nan, 1, unit)
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    ends = np.quantile(means, (0.025, 0.975))
    low, high = mean + (ends - mean) * np.sqrt(n / (n - 1)) * students_t(n - 1) / Z95
    return Estimate(mean, float(low), float(high), n, unit)


def students_t(freedom: int) -> float:
    """What 95 of 100 of Student's t are within, by its expansion in 1/ν (Abramowitz & Stegun,
    26.7.5): 3 % low for two degrees of freedom, and 0.1 % from seven on."""
    z = Z95
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def p_value(value: float, null: np.ndarray) -> float:
    """How often chance gives as much: the share of the null's values (n,) that are not below, the
    value itself among them, so never 0 (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010)."""
    null = np.asarray(null, np.float64)
    ties = np.isclose(null, value, rtol=1e-9, atol=0)  # the same sum in another order
    return float((1 + np.sum((null > value) | ties)) / (1 + null.size))


def check_some(values: np.ndarray) -> int:
    if not values.size:
        raise UsageError("an estimate needs one case at least; here is none")
    return values.size
