"""What can be read off features by a weighted sum of their channels: linear probes for masks.

A probe is fitted on the cells of some pictures and scored on others (arXiv 2306.05720).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stable_diffusion_tf.scheduler import add_noise
from xray.measure import best_iou, iou, resize_by_area

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

RIDGE = 1e-3  # of a channel's variance: holds down the weights of channels that say the same
LEVELS = 40  # thresholds that are tried

Score = Callable[[np.ndarray], np.ndarray]  # features (…, c) → (…)


class Lesson(NamedTuple):
    """Where things are in pictures of two, (n, h, w) bool each."""

    things: np.ndarray  # either of them
    left: np.ndarray
    right: np.ndarray


class Scores(NamedTuple):
    """What probes read off features of noisy pictures; the first four by the features' name."""

    times: Sequence[int]
    things: Mapping[str, np.ndarray]  # (times, pictures) IoU
    sides: Mapping[str, np.ndarray]  # (times, pictures) share of right cells
    shuffled: Mapping[str, np.ndarray]  # (times, pictures) IoU, of a probe that was taught nonsense
    bounds: Mapping[str, float]  # the best IoU that the grid allows
    chance: np.ndarray  # (pictures,) IoU where everything is called a thing
    best: str  # whose probe draws
    picture: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (h, w) bool: its things
    drawn: np.ndarray  # (times, h, w) bool: as the probe draws them


def fit(features: np.ndarray, target: np.ndarray) -> Score:
    """The weighted sum of channels that comes closest to a target, by ridge regression: features
    (n, c), target (n,)."""
    x, y = np.asarray(features, np.float64), np.asarray(target, np.float64)
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation == 0] = 1
    z = (x - mean) / deviation
    weights = np.linalg.solve(z.T @ z / len(z) + RIDGE * np.eye(x.shape[1]), z.T @ y / len(z))
    weights = weights / deviation
    return lambda given: (given - mean) @ weights + y.mean()


def fit_mask(features: np.ndarray, masks: np.ndarray) -> Score:
    """Features (n, h, w, c) and masks (n, h, w) bool → a score that is above 0 inside: the
    threshold is that of the best mean IoU with these masks."""
    score = fit(features.reshape(-1, features.shape[-1]), masks.ravel())
    found = score(features)
    levels = np.linspace(*np.quantile(found, [0.01, 0.99]), LEVELS)
    best = levels[np.argmax([iou(found >= level, masks).mean() for level in levels])]
    return lambda given: score(given) - best


def score_mask(score: Score, features: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """IoU with the mask of each picture, (n, h, w, c), (n, h, w) → (n,)."""
    return iou(score(features) >= 0, masks)


def fit_sides(features: np.ndarray, one: np.ndarray, other: np.ndarray) -> Score:
    """A score above 0 in the cells of one mask and below in those of the other: features (n, h, w,
    c), masks (n, h, w) bool. Other cells do not count."""
    either = one | other
    return fit(features[either], 2.0 * one[either] - 1)


def score_sides(
    score: Score, features: np.ndarray, one: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """The share of right cells of each picture, the mean of both masks', (n,); by chance ½."""
    above = score(features) > 0
    rates = [
        np.sum(right & mask, axis=(1, 2)) / mask.sum((1, 2))
        for right, mask in ((above, one), (~above, other))
    ]
    return np.mean(rates, axis=0)


def examine(
    features: np.ndarray, lesson: Lesson, number: int, rng: np.random.Generator
) -> np.ndarray:
    """Probes fitted on the first `number` pictures and scored on the others, (3, others): the IoU
    with the things, the share of cells told left from right, and the IoU of a probe that was fitted
    on cells in disorder. features: (n, h, w, c)."""
    known, new = np.split(features, [number])
    fit_on = Lesson(*(mask[:number] for mask in lesson))
    score_on = Lesson(*(mask[number:] for mask in lesson))
    disorder = rng.permutation(fit_on.things.ravel()).reshape(fit_on.things.shape)
    return np.stack(
        [
            score_mask(fit_mask(known, fit_on.things), new, score_on.things),
            score_sides(fit_sides(known, *fit_on[1:]), new, *score_on[1:]),
            score_mask(fit_mask(known, disorder), new, score_on.things),
        ]
    )


def draw_mask(features: np.ndarray, lesson: Lesson, number: int) -> np.ndarray:
    """What a probe fitted on the first `number` pictures takes for things in the next, (h, w)."""
    return fit_mask(features[:number], lesson.things[:number])(features[number]) >= 0


# --- features ----------------------------------------------------------------------------------


def read_noised(
    sd: "StableDiffusion",
    blocks: Sequence[str],
    x0: np.ndarray,
    context: np.ndarray,
    times: Sequence[int],
    seed: int,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Latents (n, h, w, 4) with noise of their own at each timestep, (times, n, h, w, 4), and block
    → what it makes of them, (times, n, rows, columns, channels)."""
    from xray.probe import Probe
    from xray.probe.instrumented import instrument

    noise = np.random.default_rng(seed).standard_normal((len(times), *x0.shape), dtype=np.float32)
    noisy = np.stack([add_noise(x0, e, t, sd.alphas) for e, t in zip(noise, times, strict=True)])
    found = []
    seen = instrument(sd, Probe([*blocks]))
    for t, x in zip(times, noisy, strict=True):
        seen.predict_noise(x, t, context)
        found.append(dict(seen.reads))
    return noisy, {block: np.stack([values[block] for values in found]) for block in blocks}


# --- grids -------------------------------------------------------------------------------------


def on_grid(features: np.ndarray, h: int, w: int) -> np.ndarray:
    """(…, rows, columns, c) → (…, h, w, c), each cell repeated; the new grid is a multiple."""
    rows, columns = features.shape[-3:-1]
    return features.repeat(h // rows, axis=-3).repeat(w // columns, axis=-2)


def ceiling(masks: np.ndarray, rows: int, columns: int) -> float:
    """The best mean IoU with masks (n, h, w) of what is made of the cells of a coarser grid: those
    that they cover by more than some share, the best for each."""
    share = resize_by_area(masks, rows, columns)[..., None]
    return float(best_iou(on_grid(share, *masks.shape[1:])[..., 0], masks)[0].mean())


def places(h: int, w: int) -> np.ndarray:
    """Where each cell is, (h, w, 5): row, column, from −1 to 1, their squares and their product."""
    row, column = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    return np.stack([row, column, row**2, column**2, row * column], axis=-1)


# --- components --------------------------------------------------------------------------------


def components(features: np.ndarray, count: int = 3) -> np.ndarray:
    """Principal components of the cells' features, each step's mean taken away, so that a colour
    means the same in all steps: (steps, h, w, c) → (steps, h, w, count), each from 0 to 1 but for
    the most extreme hundredths."""
    centred = np.asarray(features, np.float64) - features.mean((1, 2), keepdims=True)
    cells = centred.reshape(-1, centred.shape[-1])
    _, vectors = np.linalg.eigh(cells.T @ cells)  # the smallest first
    found = centred @ vectors[:, ::-1][:, :count]
    low, high = np.quantile(found.reshape(-1, count), [0.01, 0.99], axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.clip((found - low) / span, 0, 1)


def likeness(features: np.ndarray) -> np.ndarray:
    """The cosine between each step's features and the last one's, (steps, h, w, c) → (steps,), when
    the mean over cells is taken away: 1 where the layout is what it will be."""
    centred = np.asarray(features, np.float64) - features.mean((1, 2), keepdims=True)
    flat = centred.reshape(len(centred), -1)
    return (
        flat @ flat[-1] / np.maximum(np.linalg.norm(flat, axis=1) * np.linalg.norm(flat[-1]), 1e-12)
    )
