"""How much of what the decoder makes of a latent is a linear map from a cell to a colour."""

from typing import NamedTuple

import numpy as np

from xray import measure

LEAST = 8  # latents; where there are fewer, they are cut
PIECES = 4  # along each side of one that is cut
DRAWS = 1000  # of the pictures, with replacement, for an interval


class Share(NamedTuple):
    """A share of the variance, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def told(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


class Linear(NamedTuple):
    """The linear map from latents to colours, and what it explains of pictures it never saw."""

    matrix: np.ndarray  # (c, 3)
    bias: np.ndarray  # (3,)
    cells: Share  # of the mean colours of the cells
    pixels: Share
    chance: Share  # of the cells' colours, by a map that was fitted to other pictures


def fit_and_test(latents: np.ndarray, decoded: np.ndarray, rng: np.random.Generator) -> Linear:
    """The map fitted on half of the latents (n, h, w, c) and what was decoded of them (n, H, W, 3),
    and how much it explains of the other half."""
    if len(latents) < LEAST:
        latents, decoded = cut(latents), cut(decoded)
    known, unseen = np.array_split(rng.permutation(len(latents)), 2)
    matrix, bias, _ = measure.fit_latent_to_rgb(latents[known], decoded[known])
    wrong, off, _ = measure.fit_latent_to_rgb(latents[known], decoded[np.roll(known, 1)])
    x, y = latents[unseen], decoded[unseen]
    colours = by_cell(y, *x.shape[1:3])
    guess, chance = measure.linear_rgb(x, matrix, bias), measure.linear_rgb(x, wrong, off)
    return Linear(
        matrix,
        bias,
        explained(colours, guess, rng),
        explained(y, over_pixels(guess, y), rng),
        explained(colours, chance, rng),
    )


def cut(x: np.ndarray) -> np.ndarray:
    """(n, h, w, c) → (16·n, h/4, w/4, c)."""
    n, h, w, c = x.shape
    grid = x.reshape(n, PIECES, h // PIECES, PIECES, w // PIECES, c).swapaxes(2, 3)
    return grid.reshape(-1, h // PIECES, w // PIECES, c)


def by_cell(images: np.ndarray, h: int, w: int) -> np.ndarray:
    """The mean colour of each cell: (n, H, W, 3) → (n, h, w, 3)."""
    return np.moveaxis(measure.resize_by_area(np.moveaxis(images, -1, 1), h, w), 1, -1)


def over_pixels(cells: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Each cell's colour over all of its pixels: (n, h, w, 3) → (n, H, W, 3)."""
    factor = images.shape[1] // cells.shape[1]
    return cells.repeat(factor, axis=1).repeat(factor, axis=2)


def explained(images: np.ndarray, guess: np.ndarray, rng: np.random.Generator) -> Share:
    """R² of a guess at pictures (n, h, w, 3) and the ends of its 95 % interval: the bootstrap of
    Efron & Tibshirani (1993), chapter 13, over pictures, whose pixels go together."""
    missed = np.sum((images - guess) ** 2, axis=(1, 2, 3))
    varied = np.sum((images - images.mean(axis=(0, 1, 2))) ** 2, axis=(1, 2, 3))
    drawn = rng.integers(0, len(missed), (DRAWS, len(missed)))
    low, high = np.quantile(1 - missed[drawn].sum(1) / varied[drawn].sum(1), [0.025, 0.975])
    return Share(float(1 - missed.sum() / varied.sum()), float(low), float(high))
