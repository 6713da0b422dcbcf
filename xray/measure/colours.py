"""From a latent to colours by a linear map, and which map fits."""

import numpy as np

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_model

from .masks import resize_by_area

LATENT_TO_RGB = np.array(  # SD 1.x, scaled latents: keturn, Hugging Face forum, topic 23204
    [
        [0.298, 0.207, 0.208],
        [0.187, 0.286, 0.173],
        [-0.158, 0.189, 0.264],
        [-0.184, -0.271, -0.473],
    ]
)


def linear_rgb(
    latents: np.ndarray, matrix: np.ndarray = LATENT_TO_RGB, bias: np.ndarray | float = 0.0
) -> np.ndarray:
    """(…, c) → (…, 3), colours nearly in [-1, 1]: latent @ matrix (c, 3) + bias (3,).

    The default is for SD 1.x's scaled latents; `fit_latent_to_rgb` finds that of another model.
    """
    latents = np.asarray(latents)
    if latents.shape[-1] != len(matrix):
        raise UsageError(
            f"the map to colours takes {len(matrix)} channels, and here are {latents.shape[-1]}: "
            "find one with measure.fit_latent_to_rgb, or hand in sd.decode_latent"
        )
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are for who looks at it
        return latents @ matrix + bias


def fit_latent_to_rgb(
    latents: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The linear map from latents to colours, by least squares: colour ≈ latent @ matrix + bias.

    latents: (b, h, w, c); images: (b, H, W, 3) uint8 or float in [-1, 1], brought to h × w by area.
    Returns the matrix (c, 3), the bias (3,) and r², the share of the variance of the colours that
    the map explains (NaN where they have none).
    """
    latents, images = np.asarray(latents, np.float64), to_model(images, 1)
    if latents.ndim != 4 or len(latents) != len(images):
        raise UsageError(
            f"latents (b, h, w, c) go with images (b, H, W, 3), one each: here are "
            f"{latents.shape} and {images.shape}"
        )
    _, h, w, c = latents.shape
    planes = resize_by_area(np.moveaxis(images, -1, 1), h, w)  # (b, 3, h, w)
    colours = np.moveaxis(planes, 1, -1).reshape(-1, 3)
    known = np.concatenate([latents.reshape(-1, c), np.ones((len(colours), 1))], axis=1)
    found, *_ = np.linalg.lstsq(known, colours)
    missed = np.sum((colours - known @ found) ** 2)
    variance = np.sum((colours - colours.mean(0)) ** 2)
    r2 = 1 - missed / variance if variance else np.nan
    return found[:-1], found[-1], float(r2)


def saturation(images: np.ndarray) -> np.ndarray:
    """The share of pixels with a value at an end of its range, where colours are cut off:
    (…, H, W, 3) uint8 → (…)."""
    ends = np.any((images == 0) | (images == 255), axis=-1)
    return ends.mean(axis=(-2, -1))
