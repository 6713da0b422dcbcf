"""Arrays as pictures: numbers → colours in [-1, 1]."""

import numpy as np

from stable_diffusion_tf.errors import UsageError

MAGENTA = np.array([1, -1, 1], np.float32)  # no colour of a latent: here is NaN or infinity


def from_bytes(images: np.ndarray) -> np.ndarray:
    """uint8 0 … 255 → [-1, 1]; floats are there already."""
    return images / np.float32(127.5) - 1 if images.dtype == np.uint8 else images


def around_zero(maps: np.ndarray) -> np.ndarray:
    """(n, h, w) → (n, h, w, 3): zero is grey, the value farthest from it black or white."""
    return gray(maps / reach(maps))


def from_zero(maps: np.ndarray) -> np.ndarray:
    """(n, h, w) → (n, h, w, 3): zero is black, the largest value white."""
    return gray(2 * (maps / reach(maps)) - 1)


def reach(maps: np.ndarray) -> np.ndarray:
    """The largest finite |value| of each map, (n, 1, 1); 1 where all are zero."""
    size = np.abs(maps.astype(np.float64))
    largest = np.max(size, (-2, -1), keepdims=True, where=np.isfinite(size), initial=0.0)
    return np.where(largest == 0, 1.0, largest)


def gray(maps: np.ndarray) -> np.ndarray:
    return np.repeat(maps[..., None], 3, axis=-1)


def painted(rgb: np.ndarray) -> np.ndarray:
    """Colours (n, H, W, 3) → float32 within [-1, 1]; magenta where a number is missing."""
    with np.errstate(over="ignore"):
        rgb = np.asarray(rgb, np.float32)
    if rgb.ndim != 4 or rgb.shape[-1] != 3:
        raise UsageError(f"pictures are (n, H, W, 3), not {rgb.shape}: hand in another to_rgb")
    whole = np.isfinite(rgb).all(-1, keepdims=True)
    return np.where(whole, np.clip(rgb, -1, 1), MAGENTA)
