"""Sampling with more or less of the fresh noise that DDPM adds at each step."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stable_diffusion_tf import scheduler

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

Rule = Callable[..., tuple[np.ndarray, np.ndarray]]  # x, ε, t, t before, ᾱ, noise → x before, x0


def ancestral(factor: float) -> Rule:
    """DDPM's step with its fresh noise times a factor."""

    def step(x, eps, t, before, alphas, noise):
        return scheduler.ddpm_step(x, eps, t, before, alphas, np.float32(factor) * noise)

    return step


def implicit(eta: float) -> Rule:
    """DDIM's step with so much of DDPM's fresh noise, and as much less of the predicted one."""

    def step(x, eps, t, before, alphas, noise):
        return scheduler.ddim_step(x, eps, t, before, alphas, eta, noise)

    return step


def walk(
    sd: "StableDiffusion",
    context: np.ndarray,
    noise: np.ndarray,
    rules: Sequence[Rule],
    down: Sequence[tuple[int, int]],
    seed: int,
) -> np.ndarray:
    """Every rule from the same noise (b, h, w, c) over the same fresh noise, by steps down from one
    timestep to another: x before the first step and after each, (1 + steps, rules, b, h, w, c)."""
    rng = np.random.default_rng([seed, 1])  # apart from the stream of the first noise
    x = [np.stack([noise] * len(rules))]
    contexts = np.repeat(context, len(rules) * len(noise), axis=0)
    for t, before in down:
        flat = x[-1].reshape(-1, *noise.shape[1:])
        eps = sd.predict_noise(flat, t, contexts).reshape(x[-1].shape)
        fresh = rng.standard_normal(noise.shape, dtype=np.float32)
        stepped = zip(rules, x[-1], eps, strict=True)
        x.append(np.stack([step(y, e, t, before, sd.alphas, fresh)[0] for step, y, e in stepped]))
    return np.stack(x)
