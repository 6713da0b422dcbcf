"""How much of what the decoder makes of a latent is a linear map from positions to colours."""

from typing import NamedTuple

import numpy as np

from xray import measure
from xray.measure import Estimate

LEAST = 8  # latents; where there are fewer, they are cut
PIECES = 4  # along each side of one that is cut
DRAWS = 1000  # of the pictures, with replacement, for an interval


class Linear(NamedTuple):
    """The linear map from latents to colours, and what it explains of held-out pictures."""

    matrix: np.ndarray  # (c, 3)
    bias: np.ndarray  # (3,)
    places: Estimate  # R², %, of the mean colours of the latent positions
    pixels: Estimate
    shuffled: Estimate  # of the positions, by a map that was fitted to shuffled pictures


def fit_and_test(latents: np.ndarray, decoded: np.ndarray, rng: np.random.Generator) -> Linear:
    """The map fitted on half of the latents (n, h, w, c) and what was decoded of them (n, H, W, 3),
    and how much it explains of the other half."""
    if len(latents) < LEAST:
        latents, decoded = cut(latents), cut(decoded)
    known, unseen = np.array_split(rng.permutation(len(latents)), 2)
    matrix, bias, _ = measure.fit_latent_to_rgb(latents[known], decoded[known])
    wrong, off, _ = measure.fit_latent_to_rgb(latents[known], decoded[np.roll(known, 1)])
    x, y = latents[unseen], decoded[unseen]
    colours = by_position(y, *x.shape[1:3])
    guess, other = measure.linear_rgb(x, matrix, bias), measure.linear_rgb(x, wrong, off)
    return Linear(
        matrix,
        bias,
        explained(colours, guess, rng),
        explained(y, over_pixels(guess, y), rng),
        explained(colours, other, rng),
    )


def cut(x: np.ndarray) -> np.ndarray:
    """(n, h, w, c) → (16·n, h/4, w/4, c)."""
    n, h, w, c = x.shape
    grid = x.reshape(n, PIECES, h // PIECES, PIECES, w // PIECES, c).swapaxes(2, 3)
    return grid.reshape(-1, h // PIECES, w // PIECES, c)


def by_position(images: np.ndarray, h: int, w: int) -> np.ndarray:
    """The mean colour of each latent position: (n, H, W, 3) → (n, h, w, 3)."""
    return np.moveaxis(measure.resize_by_area(np.moveaxis(images, -1, 1), h, w), 1, -1)


def over_pixels(places: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Each position's colour over all of its pixels: (n, h, w, 3) → (n, H, W, 3)."""
    factor = images.shape[1] // places.shape[1]
    return places.repeat(factor, axis=1).repeat(factor, axis=2)


def explained(images: np.ndarray, guess: np.ndarray, rng: np.random.Generator) -> Estimate:
    """R² in per cent of a guess at pictures (n, h, w, 3), with its 95 % interval: the bootstrap of
    Efron & Tibshirani (1993), chapter 13, over pictures, whose pixels go together."""
    missed = np.sum((images - guess) ** 2, axis=(1, 2, 3))
    varied = np.sum((images - images.mean(axis=(0, 1, 2))) ** 2, axis=(1, 2, 3))
    drawn = rng.integers(0, len(missed), (DRAWS, len(missed)))
    ends = np.quantile(1 - missed[drawn].sum(1) / varied[drawn].sum(1), [0.025, 0.975])
    low, high = 100 * ends
    value = 100 * float(1 - missed.sum() / varied.sum())
    return Estimate(value, float(low), float(high), len(missed), "%")
