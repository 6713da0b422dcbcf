"""Latent consistency models: one look at the noise tells the picture, a few more make it better.

Luo et al., arXiv 2310.04378, after Song et al., arXiv 2303.01469. Pure functions on NumPy arrays;
x, x0, eps, t and alphas are those of `scheduler`. Guidance is an input of the network here, so
there is no unconditional pass and no negative prompt. The reference is diffusers' LCMScheduler and
LatentConsistencyModelPipeline.
"""

import numpy as np

from .arguments import whole
from .errors import UsageError
from .scheduler import add_noise, predict_x0

TRAIN_STEPS = 50  # of the DDIM solver that the model was distilled from
SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0


def lcm_timesteps(n: int, train_steps: int = 1000) -> np.ndarray:
    """(n,) int64, descending: n of the 50 timesteps 999, 979 … 19 that the model was distilled on,
    evenly spaced from the first (section 4.3). n = 4 gives 999, 759, 499, 259."""
    n = whole("steps", n, 4)
    if not 1 <= n <= TRAIN_STEPS:
        raise UsageError(f"an LCM takes from 1 to {TRAIN_STEPS} steps, not {n}: try steps=4")
    learned = np.arange(TRAIN_STEPS, 0, -1) * (train_steps // TRAIN_STEPS) - 1
    return learned[np.arange(n) * TRAIN_STEPS // n]


def guidance_embedding(guidance: float, width: int) -> np.ndarray:
    """(1, width) float32: [sin, cos] of 1000·w at frequencies exp(−ln 10000 · i / (half − 1)).

    w = guidance − 1 is the paper's scale, where 0 is no guidance; `guidance` is that of
    ε = ε_uncond + guidance·(ε_cond − ε_uncond), where 1 is none.
    """
    half = width // 2
    frequencies = np.exp(-np.log(10000) * np.arange(half) / (half - 1))
    angles = 1000.0 * (guidance - 1.0) * frequencies  # (half,)
    return np.concatenate([np.sin(angles), np.cos(angles)]).astype(np.float32)[None]


def consistent_x0(x: np.ndarray, eps: np.ndarray, t: int, alphas: np.ndarray) -> np.ndarray:
    """The consistency function f(x, t) = c_skip·x + c_out·(the clean latent of eps), which is x
    itself at t = 0: arXiv 2303.01469, eq. 5."""
    scaled = int(t) * TIMESTEP_SCALING  # a NumPy integer would make all of it float64
    power = scaled**2 + SIGMA_DATA**2
    c_skip, c_out = SIGMA_DATA**2 / power, scaled / power**0.5
    return c_skip * x + c_out * predict_x0(x, eps, t, alphas)


def lcm_step(
    x: np.ndarray,
    eps: np.ndarray,
    t: int,
    t_prev: int,
    alphas: np.ndarray,
    noise: np.ndarray | None = None,
    x0: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One step down, from t to t_prev: arXiv 2303.01469, algorithm 1. Returns (x_prev, x0).

    x0: None is `consistent_x0`. x_prev is x0 with `noise` ~ N(0, 1), as much as t_prev has, or x0
    itself where t_prev is negative: pass −1 after the last timestep.
    """
    if t_prev >= 0 and noise is None:
        raise ValueError(f"an LCM adds noise at every step but the last, here t={t}: pass noise=")
    x0 = consistent_x0(x, eps, t, alphas) if x0 is None else x0
    return (add_noise(x0, noise, t_prev, alphas) if t_prev >= 0 else x0), x0
