"""Noise → latents → pictures, for scripts that draw the same noise again and again."""

import math
from typing import TYPE_CHECKING

import numpy as np

from stable_diffusion_tf.images import to_uint8

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion


def draw(sd: "StableDiffusion", contexts: np.ndarray, noise: np.ndarray, run: dict) -> np.ndarray:
    """Where runs end that start from these latents, (b, h, w, 4).

    contexts: (b, 77, width), one for each. run: the other arguments of `sd.denoise`, uncond first
    of all.
    """
    *_, last = sd.denoise(contexts, latent=noise, **run)
    return last.x_prev


def parts_that_fit(sd: "StableDiffusion", noise: np.ndarray, along: int = 0) -> list[np.ndarray]:
    """Indices of the latents (b, h, w, 4) that are drawn at a time, with and without the prompt,
    where an instrument keeps their rows together. along: how many others go with each part."""
    from stable_diffusion_tf.unet import rows_at_once

    most = max(1, rows_at_once(sd.unet_config, math.prod(noise.shape[1:-1])) // 2 - along)
    return np.array_split(np.arange(len(noise)), math.ceil(len(noise) / most))


def decode(sd: "StableDiffusion", latents: np.ndarray) -> np.ndarray:
    """Latents (n, h, w, 4) → (n, H, W, 3) in [-1, 1], one by one, so that large pictures fit."""
    return np.concatenate([sd.decode_latent(latent[None]) for latent in latents])


def paint(sd: "StableDiffusion", contexts: np.ndarray, noise: np.ndarray, run: dict) -> np.ndarray:
    """The pictures of these runs, (b, H, W, 3) uint8; arguments as for `draw`."""
    return to_uint8(decode(sd, draw(sd, contexts, noise, run)))


def encode(sd: "StableDiffusion", images: np.ndarray) -> np.ndarray:
    """Pictures (n, H, W, 3), uint8 or in [-1, 1] → the means of their latents, (n, h, w, 4), one by
    one, so that large pictures fit."""
    return np.concatenate([sd.encode_image(image[None]) for image in images])


def to_pictures(sd: "StableDiffusion", latents: np.ndarray) -> np.ndarray:
    """Latents with any axes before theirs, (…, h, w, 4) → (…, H, W, 3) uint8."""
    images = to_uint8(decode(sd, latents.reshape(-1, *latents.shape[-3:])))
    return images.reshape(*latents.shape[:-3], *images.shape[1:])
