"""Pictures at the edges, 0 … 255, and inside, [-1, 1]."""

import numpy as np

from .errors import UsageError


def to_uint8(images: np.ndarray) -> np.ndarray:
    """[-1, 1] → 0 … 255, rounded."""
    return np.rint(np.clip(images, -1, 1) * 127.5 + 127.5).astype(np.uint8)


def to_model(images: np.ndarray, multiple: int) -> np.ndarray:
    """(b, H, W, 3) uint8 or float in [-1, 1] → float32 in [-1, 1]."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise UsageError(f"images are (b, H, W, 3), not {images.shape}")
    if images.shape[1] % multiple or images.shape[2] % multiple or 0 in images.shape:
        raise UsageError(
            f"a picture of {images.shape[2]}×{images.shape[1]} pixels: both must be multiples of "
            f"{multiple}; crop or resize it"
        )
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(127.5) - 1
    if not np.issubdtype(images.dtype, np.floating) or not np.abs(images).max() <= 1.001:
        raise UsageError("images are uint8, or floats in [-1, 1]; divide by 127.5 and subtract 1")
    return images.astype(np.float32)
