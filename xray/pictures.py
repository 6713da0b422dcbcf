"""Pictures from disk, for scripts that look at one or at many."""

from pathlib import Path

import numpy as np

from stable_diffusion_tf.errors import UsageError

from . import script

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def read_pictures(place: Path, size: int, most: int) -> np.ndarray:
    """A picture, or a folder's first `most` by name: the middle square of each, (n, size, size, 3)
    uint8. Raises UsageError where there is none, or one cannot be read."""
    return np.stack([script.read_image(path, size) for path in find_pictures(place)[:most]])


def find_pictures(place: Path) -> list[Path]:
    """The picture itself, or all in the folder, by name. Raises UsageError where there is none."""
    if not place.exists():
        raise UsageError(f"there is no {place}; name a picture or a folder of pictures")
    if not place.is_dir():
        return [place]
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"no picture in {place}; known are {', '.join(sorted(SUFFIXES))}")
    return found
