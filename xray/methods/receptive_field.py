"""How far one position of a latent reaches in the picture that is decoded of it."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .drawing import decode

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

PROBES = 4  # positions of each picture that are moved, one at a time
HELD = 0.95  # of the squared change, inside of the radius


class Reach(NamedTuple):
    """What changes in a picture, as a share of full scale, where one latent position is moved."""

    radii: np.ndarray  # (probes,) pixels, within which HELD of the squared change lies
    rms: np.ndarray  # (rings,) by the distance from the middle of the position, in whole pixels
    around: (
        np.ndarray
    )  # (rows, columns) RMS of the pixels around the position, which is in the middle
    factor: int  # pixels along the side of a position
    unmoved: float  # the largest change where none was moved


def measure_reach(sd: "StableDiffusion", latents: np.ndarray, rng: np.random.Generator) -> Reach:
    """Positions in the middle half of latents (n, h, w, c), each moved by Gaussian noise of
    the standard deviation of its channels; picture after picture, PROBES of each."""
    n, h, w, c = latents.shape
    std, factor = latents.std(axis=(0, 1, 2)), sd.vae_config.factor
    margin = np.array([h // 4, w // 4])
    decoded = decode(sd, latents)
    radii, rings, around = [], [], []
    for i in np.arange(PROBES * n) % n:
        row, column = place = rng.integers(margin, [h, w] - margin)
        moved = latents[i].copy()
        moved[row, column] += (std * rng.standard_normal(c)).astype(moved.dtype)
        change = squared_change(decoded[i], decode(sd, moved[None])[0])
        far = distances(*change.shape, factor * (place + 0.5))
        radii.append(radius_holding(change, far, HELD))
        rings.append(ring_means(change, far))
        around.append(crop(change, factor * (place - margin), factor * (2 * margin + 1)))
    everywhere = min(map(len, rings))  # of rings, how many each has
    rms = np.sqrt(np.mean([ring[:everywhere] for ring in rings], axis=0))
    unmoved = squared_change(decoded[0], decode(sd, latents[:1])[0]).max()
    return Reach(np.array(radii), rms, np.sqrt(np.mean(around, axis=0)), factor, float(unmoved))


def squared_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Between pictures (H, W, 3) in [-1, 1], the mean over colours; black to white is 1: (H, W)."""
    return np.mean(((np.asarray(after, np.float64) - before) / 2) ** 2, axis=-1)


def distances(rows: int, columns: int, point: np.ndarray) -> np.ndarray:
    """How far the middle of each pixel is from a point (y, x), in pixels: (rows, columns)."""
    y, x = np.arange(rows) + 0.5 - point[0], np.arange(columns) + 0.5 - point[1]
    return np.hypot(y[:, None], x)


def radius_holding(change: np.ndarray, far: np.ndarray, share: float) -> float:
    """The least distance within which lies this share of the sum of a change; both (H, W)."""
    order = np.argsort(far, axis=None)
    held = np.cumsum(change.ravel()[order])
    return float(far.ravel()[order][np.searchsorted(held, share * held[-1])])


def ring_means(change: np.ndarray, far: np.ndarray) -> np.ndarray:
    """The mean of a change (H, W) over rings one pixel wide, (rings,)."""
    ring = far.astype(int).ravel()
    return np.bincount(ring, change.ravel()) / np.bincount(ring)


def crop(image: np.ndarray, corner: np.ndarray, size: np.ndarray) -> np.ndarray:
    rows, columns = (slice(start, start + n) for start, n in zip(corner, size, strict=True))
    return image[rows, columns]
