"""How numbers are distributed, and by how much they are uncertain."""

from typing import NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError


def entropy(weights: np.ndarray, axis: int = -1) -> np.ndarray:
    """Entropy in bits of the distributions along an axis, (…, n, …) → (…).

    Shannon, Bell System Technical Journal 27 (1948), section 6. The weights need not sum to 1; none
    may be negative. All zero is no distribution: NaN.
    """
    weights = np.asarray(weights, np.float64)
    if np.any(weights < 0):
        raise UsageError(f"a distribution has no negative weights; here is {weights.min():.3g}")
    with np.errstate(invalid="ignore"):
        p = weights / weights.sum(axis, keepdims=True)
    return np.sum(p * np.log2(1 / np.where(p == 0, 1.0, p)), axis)


class Normality(NamedTuple):
    """Moments of an array, and a statistic that stays below `critical` in 95 of 100 normal ones."""

    mean: float
    std: float
    skewness: float  # normal: 0
    excess_kurtosis: float  # normal: 0; heavy tails: above
    jarque_bera: float
    critical: float


def normality(x: np.ndarray) -> Normality:
    """How far the values of an array are from a Gaussian distribution of any mean and width.

    Jarque & Bera, Economics Letters 6 (1980), p. 257: n/6·(skewness² + kurtosis²/4), of χ² with two
    degrees of freedom if the values are normal and independent, so the critical value at 5 % is
    −2·ln 0.05. It holds for large n: from about two thousand values on. The moments divide by n.
    An array without two different values gives NaN.
    """
    x = np.asarray(x, np.float64).ravel()
    critical = -2 * float(np.log(0.05))
    if x.size == 0 or np.all(x == x[0]):
        mean, deviation = (float(x[0]), 0.0) if x.size else (np.nan, np.nan)
        return Normality(mean, deviation, np.nan, np.nan, np.nan, critical)
    with np.errstate(all="ignore"):  # what NaN and infinity lead to is told by the result
        mean, deviation = float(x.mean()), float(x.std())
        z = (x - mean) / deviation
        skewness, kurtosis = float(np.mean(z**3)), float(np.mean(z**4)) - 3
    statistic = x.size / 6 * (skewness**2 + kurtosis**2 / 4)
    return Normality(mean, deviation, skewness, kurtosis, statistic, critical)


class Spectrum(NamedTuple):
    """Power by spatial frequency: Σ power·waves is the mean square of a map."""

    frequency: np.ndarray  # (n,) cycles per cell, from 0, the mean, to √½, the checkerboard
    power: np.ndarray  # (n,) or (n, c): the mean over the waves of a frequency; flat in white noise
    waves: np.ndarray  # (n,) how many they are


def spectrum(maps: np.ndarray) -> Spectrum:
    """The radial power spectrum of a map (h, w) or of several (h, w, c), each by itself.

    Waves whose distance from the origin of the Fourier plane rounds to the same step are one
    frequency; a step is one wave over the longer side.
    """
    maps = np.asarray(maps, np.float64)
    if maps.ndim not in (2, 3) or maps.size == 0:
        raise UsageError(f"a spectrum is of maps (h, w) or (h, w, c), not {maps.shape}")
    h, w = maps.shape[:2]
    power = np.abs(np.fft.fft2(maps, axes=(0, 1)) / (h * w)) ** 2
    radius = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
    step = max(h, w)
    rings, ring, waves = np.unique(np.rint(radius * step), return_inverse=True, return_counts=True)
    total = np.zeros((len(rings), *maps.shape[2:]))
    np.add.at(total, ring.ravel(), power.reshape(h * w, *maps.shape[2:]))
    return Spectrum(rings / step, (total.T / waves).T, waves)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays of one shape, ties sharing their mean rank (Am. J.
    Psychol. 15, 1904); 0 where one of them is constant."""
    x, y = (mean_ranks(values) for values in (a, b))
    spread = np.sqrt(np.sum(x**2) * np.sum(y**2))
    return float(np.sum(x * y) / spread) if spread else 0.0


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Each value's rank, less the mean of all: (n,)."""
    _, place, count = np.unique(np.ravel(values), return_inverse=True, return_counts=True)
    ranks = np.cumsum(count) - (count - 1) / 2  # of each distinct value
    return ranks[place] - (len(place) + 1) / 2
