"""A picture's latent walked back to the noise that it could have been drawn from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stable_diffusion_tf import scheduler

from .drawing import decode, draw, encode

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


def walk_all(
    sd: "StableDiffusion",
    images: np.ndarray,
    contexts: np.ndarray,
    uncond: np.ndarray,
    scales: Sequence[float],
    steps: Sequence[int],
    fresh: np.ndarray,
) -> dict[tuple[str, int], tuple[np.ndarray | None, np.ndarray]]:
    """Images (n, H, W, 3) in [-1, 1] walked with each guidance and each number of steps: (what was
    walked, steps) → the noise and the pictures, as `there_and_back`. In the most steps also what
    is drawn from `fresh` noise with the first guidance, and what encoding alone leaves."""
    latents, ends = encode(sd, images), {}
    runs = [{"uncond": uncond, "steps": n, "guidance": s} for s in scales for n in steps]
    for run in runs:
        sd.denoise(contexts, latent=latents, **run)  # not begun: bad input is told before the work
    for run in runs:
        name = f"guidance {run['guidance']:g}", run["steps"]
        ends[name] = there_and_back(sd, contexts, latents, run)
    first = runs[0] | {"steps": steps[-1]}
    ends["fresh noise", steps[-1]] = fresh, decode(sd, draw(sd, contexts, fresh, first))
    ends["encoded", steps[-1]] = None, decode(sd, latents)
    return ends


def neighbour_correlation(noise: np.ndarray) -> np.ndarray:
    """How alike neighbouring values of (b, h, w, c) are, to the right and below, (b,): the mean
    product of their standardised values; of white noise 0."""
    noise = np.asarray(noise, np.float64)
    mean, std = (f(noise, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
    z = (noise - mean) / std
    pairs = z[:, :, 1:] * z[:, :, :-1], z[:, 1:] * z[:, :-1]
    return np.mean([product.mean((1, 2, 3)) for product in pairs], axis=0)
