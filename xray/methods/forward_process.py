"""From a clean latent to noise in a thousand small steps, beside the formula that needs none."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stable_diffusion_tf import scheduler


class Seen(NamedTuple):
    """What was measured of x at some timesteps, (n,) each but the last."""

    t: np.ndarray
    share: np.ndarray  # x0's amplitude in x; the formula: √ᾱ
    noise: np.ndarray  # the variance of what is left of x without it; the formula: 1 − ᾱ
    variance: np.ndarray  # of x; the formula: 1 − ᾱ + ᾱ·var(x0)
    values: np.ndarray  # (n, values): x itself


def walk(
    x0: np.ndarray, alphas: np.ndarray, stops: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Latents (b, h, w, c) at these timesteps, (stops, b, h, w, c), one small step after the other:
    arXiv 2006.11239, eq. 2, whose 1 − β is what the table loses from one timestep to the next."""
    x, seen = x0, []
    for t, stay in enumerate(alphas / np.concatenate([[1.0], alphas[:-1]])):
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        x = np.float32(np.sqrt(stay)) * x + np.float32(np.sqrt(1 - stay)) * noise
        if t in stops:
            seen.append(x)
    return np.stack(seen)


def straight_betas() -> np.ndarray:
    """(1000,) ᾱ of a table with the same ends in which β, not √β, grows linearly."""
    return np.cumprod(1 - np.linspace(0.00085, 0.012, 1000))


def look(x: np.ndarray, x0: np.ndarray, stops: Sequence[int], alphas: np.ndarray) -> Seen:
    """What x (stops, b, h, w, c) is made of: x0's amplitude by least squares, and the rest."""
    flat, clean = x.reshape(len(x), -1).astype(np.float64), x0.ravel().astype(np.float64)
    share = flat @ clean / (clean @ clean)
    rest = flat - np.sqrt(alphas[list(stops)])[:, None] * clean
    return Seen(np.array(stops), share, rest.var(axis=1), flat.var(axis=1), flat)


def misses(x: np.ndarray, x0: np.ndarray, stops: Sequence[int], alphas: np.ndarray) -> np.ndarray:
    """The noise that the formula finds in x: by how many standard errors its mean, its variance
    and its correlation with x0 are off those of a standard Gaussian one, (stops, 3)."""
    clean = x0.astype(np.float64)
    aside = (clean - clean.mean()) / clean.std()
    rows = []
    for t, at_t in zip(stops, x.astype(np.float64), strict=True):
        noise = scheduler.predict_eps(at_t, clean, t, alphas)
        n = noise.size
        off = noise.mean(), (noise.var() - 1) / np.sqrt(2), np.mean(noise * aside)
        rows.append(np.sqrt(n) * np.array(off))
    return np.array(rows)
