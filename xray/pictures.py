"""Pictures from disk, for scripts that look at one or at many."""

from pathlib import Path

import numpy as np

from stable_diffusion_tf.errors import UsageError

from . import script

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def read_pictures(place: Path, size: int, most: int) -> np.ndarray:
    """A picture, or a folder's first `most` by name: the middle square of each, (n, size, size, 3)
    uint8. Raises UsageError where there is none, or one cannot be read."""
    if not place.exists():
        raise UsageError(f"there is no {place}; name a picture or a folder of pictures")
    found = sorted(find(place)) if place.is_dir() else [place]
    if not found:
        raise UsageError(f"no picture in {place}; known are {', '.join(sorted(SUFFIXES))}")
    return np.stack([script.read_image(path, size) for path in found[:most]])


def find(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
