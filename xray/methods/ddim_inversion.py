"""A picture's latent walked back to the noise that it could have been drawn from."""

from typing import TYPE_CHECKING

import numpy as np

from stable_diffusion_tf import scheduler

from .drawing import decode, draw

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion


def ddim_invert(
    sd: "StableDiffusion",
    contexts: np.ndarray,
    latents: np.ndarray,
    uncond: np.ndarray,
    steps: int,
    guidance: float,
) -> np.ndarray:
    """The noise from which DDIM's steps with the same arguments lead to the latents, (b, h, w, 4).

    Each step is DDIM's, solved for where it came from, with the noise predicted at the wrong end:
    ε(x_t, t) ≈ ε(x_t−1, t), as x_t is what is sought (Song et al., arXiv 2010.02502, section 4.3
    and eq. 13). The smaller the steps, the less is wrong. contexts: (b, 77, width); uncond: the
    same, or (1, 77, width).
    """
    both = np.concatenate([np.broadcast_to(uncond, contexts.shape), contexts])
    x = latents
    for t in map(int, sd.timesteps(steps)[::-1]):
        eps_uncond, eps_cond = np.split(sd.predict_noise(np.concatenate([x, x]), t, both), 2)
        eps = eps_uncond + np.float32(guidance) * (eps_cond - eps_uncond)
        below = max(scheduler.previous(t, steps, len(sd.alphas)), 0)
        x, _ = scheduler.ddim_step(x, eps, below, t, sd.alphas)
    return x


def there_and_back(
    sd: "StableDiffusion", contexts: np.ndarray, latents: np.ndarray, run: dict
) -> tuple[np.ndarray, np.ndarray]:
    """The noise that the latents are walked to, (b, h, w, 4), and the pictures that are drawn from
    it, (b, H, W, 3) in [-1, 1]. run: uncond, steps and guidance, of both ways."""
    noise = ddim_invert(sd, contexts, latents, **run)
    return noise, decode(sd, draw(sd, contexts, noise, run))


def neighbour_correlation(noise: np.ndarray) -> np.ndarray:
    """How alike neighbouring cells of (b, h, w, c) are, to the right and below, (b,): the mean
    product of their standardised values; of white noise 0."""
    noise = np.asarray(noise, np.float64)
    mean, deviation = (f(noise, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
    z = (noise - mean) / deviation
    pairs = z[:, :, 1:] * z[:, :, :-1], z[:, 1:] * z[:, :-1]
    return np.mean([product.mean((1, 2, 3)) for product in pairs], axis=0)
