"""Photographs for the image encoder to learn from, those that scikit-image brings with it.

It is needed for training alone: `make .venv/.train` installs it. The photograph that the
experiments show, matplotlib's of Grace Hopper, is not among them, so that what comes back of it
can be measured.
"""

from functools import lru_cache
from importlib import resources

import numpy as np
from PIL import Image

NAMES = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "motorcycle_left", "rocket")


@lru_cache(maxsize=1)
def photographs() -> tuple[Image.Image, ...]:
    folder = resources.files("skimage") / "data"
    found = [f for name in NAMES for f in folder.iterdir() if f.name.startswith(f"{name}.")]
    return tuple(Image.open(file).convert("RGB") for file in found)


def cut(rng: np.random.Generator, pictures: tuple[Image.Image, ...], side: int) -> np.ndarray:
    """A square of a photograph, whole or a part as small as `side`: (side, side, 3) uint8."""
    source = pictures[rng.integers(len(pictures))]
    width = int(rng.integers(side, min(source.size) + 1))
    left, top = (int(rng.integers(n - width + 1)) for n in source.size)
    box = (left, top, left + width, top + width)
    square = source.resize((side, side), Image.Resampling.LANCZOS, box=box)
    pixels = np.asarray(square)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
