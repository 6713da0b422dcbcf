"""The diffusion process of Stable Diffusion 1.x: noise in, and noise out step by step.

Pure functions on NumPy arrays, no state. Throughout:

    x      (b, h, w, c) a latent at timestep t: x = √ᾱ·x0 + √(1−ᾱ)·ε
    x0     the clean latent; `eps` the noise ε in it
    t      timestep, 0 (nearly clean) … 999 (nearly noise): an int or, where said, (b,) ints
    alphas (1000,) float64, the table of ᾱ: the share of the signal's power left at each timestep

Coefficients are computed in float64; every result has the dtype of the array handed in first.
The reference is CompVis `ldm` and diffusers' DDIMScheduler and DDPMScheduler.
"""

import numpy as np

from .arguments import whole
from .errors import UsageError


def linear_betas(start: float, end: float, steps: int) -> np.ndarray:
    """(steps,) float64: arXiv 2006.11239, section 4."""
    return np.linspace(start, end, steps, dtype=np.float64)


def scaled_linear_betas(start: float, end: float, steps: int) -> np.ndarray:
    """(steps,) float64: √β grows linearly, as in CompVis `ldm`."""
    return linear_betas(start**0.5, end**0.5, steps) ** 2


BETAS = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}


def alphas_cumprod(
    start: float = 0.00085, end: float = 0.012, steps: int = 1000, schedule: str = "scaled_linear"
) -> np.ndarray:
    """(steps,) float64: ᾱ, where β grows from start to end as a schedule of `BETAS` says."""
    return np.cumprod(1.0 - BETAS[schedule](start, end, steps))


def timesteps(n: int, train_steps: int = 1000, offset: int = 1) -> np.ndarray:
    """(n,) int64, descending: "leading" spacing (arXiv 2305.08891, table 2), exactly n of them.

    n = 50 gives 981, 961 … 1. Where the offset would step past the table (n = 1000: t = 1000) it is
    dropped; diffusers reads out of range there.
    """
    n = check_steps(n, train_steps)
    ascending = np.arange(n, dtype=np.int64) * (train_steps // n)
    if ascending[-1] + offset < train_steps:
        ascending += offset
    return ascending[::-1].copy()


def trailing_timesteps(n: int, train_steps: int = 1000) -> np.ndarray:
    """(n,) int64, descending: "trailing" spacing (arXiv 2305.08891, table 2), which begins at the
    last timestep. n = 50 gives 999, 979 … 19."""
    n = check_steps(n, train_steps)
    return np.round(np.arange(train_steps, 0, -train_steps / n)).astype(np.int64)[:n] - 1


def linspace_timesteps(n: int, train_steps: int = 1000) -> np.ndarray:
    """(n,) int64, descending: "linspace" spacing (arXiv 2305.08891, table 2), from the last to 0.
    n = 50 gives 999, 979, 958 … 0."""
    n = check_steps(n, train_steps)
    return np.linspace(0, train_steps - 1, n).round()[::-1].astype(np.int64)


def check_steps(n: int, train_steps: int) -> int:
    n = whole("steps", n, 25)
    if not 1 <= n <= train_steps:
        raise UsageError(f"steps must be from 1 to {train_steps}, not {n}: try steps=25")
    return n


def previous(t: int, n: int, train_steps: int = 1000) -> int:
    """The timestep one DDIM stride below t in a run of n steps; negative after the last."""
    return int(t) - train_steps // n


def add_noise(
    x0: np.ndarray, noise: np.ndarray, t: int | np.ndarray, alphas: np.ndarray
) -> np.ndarray:
    """x at timestep t, a scalar or (b,): arXiv 2006.11239, eq. 4."""
    signal, sigma = _amplitudes(t, alphas, x0)
    return _like(x0, signal * x0 + sigma * noise)


def predict_x0(
    x: np.ndarray, eps: np.ndarray, t: int | np.ndarray, alphas: np.ndarray
) -> np.ndarray:
    """The clean latent, if `eps` is the noise in x: arXiv 2006.11239, eq. 15."""
    signal, sigma = _amplitudes(t, alphas, x)
    return _like(x, (x - sigma * eps) / signal)


def predict_eps(
    x: np.ndarray, x0: np.ndarray, t: int | np.ndarray, alphas: np.ndarray
) -> np.ndarray:
    """The noise in x, if `x0` is the clean latent: `predict_x0` the other way round."""
    signal, sigma = _amplitudes(t, alphas, x)
    return _like(x, (x - signal * x0) / sigma)


def velocity_to_x0(
    x: np.ndarray, velocity: np.ndarray, t: int | np.ndarray, alphas: np.ndarray
) -> np.ndarray:
    """The clean latent from v = √ᾱ·ε − √(1−ᾱ)·x0: arXiv 2202.00512, appendix D."""
    signal, sigma = _amplitudes(t, alphas, x)
    return _like(x, signal * x - sigma * velocity)


def velocity_to_eps(
    x: np.ndarray, velocity: np.ndarray, t: int | np.ndarray, alphas: np.ndarray
) -> np.ndarray:
    """The noise from v = √ᾱ·ε − √(1−ᾱ)·x0: arXiv 2202.00512, appendix D."""
    signal, sigma = _amplitudes(t, alphas, x)
    return _like(x, signal * velocity + sigma * x)


def snr(t: int | np.ndarray, alphas: np.ndarray) -> float | np.ndarray:
    """Signal-to-noise ratio of power, ᾱ / (1 − ᾱ): a float, or (b,) for t of (b,)."""
    alpha = _alpha(t, alphas)
    return alpha / (1.0 - alpha)


def ddim_step(
    x: np.ndarray,
    eps: np.ndarray,
    t: int,
    t_prev: int,
    alphas: np.ndarray,
    eta: float = 0.0,
    noise: np.ndarray | None = None,
    x0: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One step down, from t to t_prev: arXiv 2010.02502, eq. 12 and 16. Returns (x_prev, x0).

    eta = 0 is deterministic; eta = 1 is as noisy as DDPM and needs `noise` ~ N(0, 1), shaped like
    x. A negative t_prev, after the last step, reads ᾱ[0] (set_alpha_to_one = false): a trace of
    noise is left. With eta = 0, t_prev may lie above t: that inverts the step. x0 is not clipped;
    None predicts it from x and eps.
    """
    if not 0.0 <= eta <= 1.0:
        raise UsageError(f"eta must be from 0 (deterministic) to 1 (as noisy as DDPM), not {eta}")
    if eta > 0 and noise is None:
        raise ValueError(f"eta={eta} adds noise at every step: pass noise=, or eta=0")
    alpha, alpha_prev = _alpha(t, alphas), _alpha(max(t_prev, 0), alphas)
    variance = eta**2 * _posterior_variance(alpha, alpha_prev) if eta > 0 else 0.0
    x0 = predict_x0(x, eps, t, alphas) if x0 is None else x0
    x_prev = alpha_prev**0.5 * x0 + (1.0 - alpha_prev - variance) ** 0.5 * eps
    if eta > 0:
        x_prev = x_prev + variance**0.5 * noise
    return _like(x, x_prev), x0


def ddpm_step(
    x: np.ndarray,
    eps: np.ndarray,
    t: int,
    t_prev: int,
    alphas: np.ndarray,
    noise: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One ancestral step down, from t to t_prev: arXiv 2006.11239, eq. 6–7. Returns (x_prev, x0).

    Draws from the posterior q(x_prev | x, x0), whose variance is diffusers' "fixed_small". `noise`
    ~ N(0, 1), shaped like x, is needed for every t > 0. A negative t_prev is the clean latent
    itself, ᾱ = 1: unlike DDIM, DDPM leaves no noise. So pass −1 after the last timestep; for more
    than 500 steps `previous` gives 0 there, since its stride is 1 and the last timestep is 1.
    """
    if t > 0 and noise is None:
        raise ValueError(f"DDPM adds noise at every t > 0, here t={t}: pass noise=")
    alpha = _alpha(t, alphas)
    alpha_prev = _alpha(t_prev, alphas) if t_prev >= 0 else 1.0
    step = alpha / alpha_prev  # α: the share of the power that survives from t_prev to t
    x0 = predict_x0(x, eps, t, alphas)
    towards_x0 = alpha_prev**0.5 * (1.0 - step) / (1.0 - alpha)
    stay_at_x = step**0.5 * (1.0 - alpha_prev) / (1.0 - alpha)
    x_prev = towards_x0 * x0 + stay_at_x * x
    if t > 0:
        x_prev = x_prev + _posterior_variance(alpha, alpha_prev) ** 0.5 * noise
    return _like(x, x_prev), x0


def _posterior_variance(alpha: float, alpha_prev: float) -> float:
    """The variance of q(x_prev | x, x0): β̃ of arXiv 2006.11239, eq. 7; σ² of 2010.02502, eq. 16."""
    if alpha_prev < alpha:
        raise ValueError("noise can be drawn only on the way down: t_prev must not be above t")
    return (1.0 - alpha_prev) / (1.0 - alpha) * (1.0 - alpha / alpha_prev)


def _alpha(t: int | np.ndarray, alphas: np.ndarray) -> float | np.ndarray:
    """ᾱ at t in float64: a float for a scalar, else (b,)."""
    t = np.asarray(t)
    if np.any((t < 0) | (t >= len(alphas))):
        raise IndexError(f"timesteps run from 0 to {len(alphas) - 1}, not {t}")
    alpha = np.asarray(alphas, dtype=np.float64)[t]
    # A Python float keeps the dtype of any array it multiplies; a NumPy float64 would not.
    return float(alpha) if t.ndim == 0 else alpha


def _amplitudes(
    t: int | np.ndarray, alphas: np.ndarray, x: np.ndarray
) -> tuple[float, float] | tuple[np.ndarray, np.ndarray]:
    """(√ᾱ, √(1−ᾱ)) at t: floats, or (b, 1, 1, 1) to go with an x of (b, h, w, c)."""
    alpha = _alpha(t, alphas)
    if isinstance(alpha, np.ndarray):
        alpha = alpha.reshape(-1, *[1] * (len(x.shape) - 1))
    return alpha**0.5, (1.0 - alpha) ** 0.5


def _like(x: np.ndarray, result: np.ndarray) -> np.ndarray:
    """The result in the dtype of x, which must hold fractions."""
    if getattr(x.dtype, "kind", "f") in "biu":
        raise TypeError(f"the scheduler works on float arrays, not {x.dtype}: convert x first")
    return result if result.dtype == x.dtype else result.astype(x.dtype)
