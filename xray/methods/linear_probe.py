"""What can be read off features by a weighted sum of their channels: linear probes for masks.

A probe is fitted on the positions of some pictures and scored on others (arXiv 2306.05720).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stable_diffusion_tf.scheduler import add_noise
from xray.measure import Estimate, best_iou, iou, mean_of, resize_by_area
from xray.rounding import Held

from .drawing import parts_that_fit

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.film import Film

RIDGE = 1e-3  # of a channel's variance: holds down the weights of channels that say the same
LEVELS = 40  # thresholds that are tried

Score = Callable[[np.ndarray], np.ndarray]  # features (…, c) → (…)


class Scores(NamedTuple):
    """What probes read off features of noisy pictures; the first three by the features' name."""

    times: Sequence[int]
    things: Mapping[str, np.ndarray]  # (times, pictures) IoU
    shuffled: Mapping[str, np.ndarray]  # (times, pictures) IoU, of a probe of shuffled masks
    bounds: Mapping[str, float]  # the best IoU that the grid allows
    chance: np.ndarray  # (pictures,) IoU where everything is called a thing
    best: str  # whose probe draws
    picture: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (h, w) bool: its things
    drawn: np.ndarray  # (times, h, w) bool: as the probe draws them

    def above_chance(self) -> Estimate:
        """By how much the IoU of the probes of shuffled masks is above chance."""
        return mean_of(np.stack([*self.shuffled.values()]).mean((0, 1)) - self.chance)


def fit(features: np.ndarray, target: np.ndarray) -> Score:
    """The weighted sum of channels that comes closest to a target, by ridge regression: features
    (n, c), target (n,)."""
    x, y = np.asarray(features, np.float64), np.asarray(target, np.float64)
    mean, std = x.mean(0), x.std(0)
    std[std == 0] = 1
    z = (x - mean) / std
    weights = np.linalg.solve(z.T @ z / len(z) + RIDGE * np.eye(x.shape[1]), z.T @ y / len(z))
    weights = weights / std
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


def examine(
    features: np.ndarray, masks: np.ndarray, number: int, rng: np.random.Generator
) -> np.ndarray:
    """The IoU on the other pictures of a probe that was fitted on the first `number`, and of one
    fitted on their masks with all positions shuffled, (2, others). features: (n, h, w, c), masks:
    (n, h, w) bool."""
    known, new = np.split(features, [number])
    fit_on, score_on = np.split(masks, [number])
    shuffled = rng.permutation(fit_on.ravel()).reshape(fit_on.shape)
    return np.stack(
        [score_mask(fit_mask(known, some), new, score_on) for some in (fit_on, shuffled)]
    )


def draw_mask(features: np.ndarray, masks: np.ndarray, number: int) -> np.ndarray:
    """What a probe fitted on the first `number` pictures takes for things in the next, (h, w)."""
    return fit_mask(features[:number], masks[:number])(features[number]) >= 0


# --- features ----------------------------------------------------------------------------------


def film_features(
    sd: "StableDiffusion", prompt: str, blocks: re.Pattern, out: Path | str, run: dict
) -> "tuple[Film, Held]":
    """The film of a run with the values whose whole address is like a pattern, and how far its end
    is from that of the same run when nobody looks. run: steps, guidance, seed."""
    from xray.film import Film
    from xray.film.replay import unwatched
    from xray.probe import Probe, taps

    nothing = np.zeros((1, 1, 1), np.float32)
    sd.denoise(nothing, nothing, **run)  # not begun: it looks
    places = [tap.address for tap in taps(sd) if blocks.fullmatch(tap.address)]
    film = Film.shoot(sd, prompt, probes=[Probe(places)], out=out, **run)
    return film, unwatched(sd, film)


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
    seen, found = instrument(sd, Probe([*blocks])), {block: [] for block in blocks}
    for t, x in zip(times, noisy, strict=True):
        for part in parts_that_fit(sd, x):
            seen.predict_noise(x[part], t, context[part])
            for block, values in found.items():
                values.append(seen.reads[block])
    made = {block: np.concatenate(values) for block, values in found.items()}
    return noisy, {block: x.reshape(*noisy.shape[:2], *x.shape[1:]) for block, x in made.items()}


# --- grids -------------------------------------------------------------------------------------


def on_grid(features: np.ndarray, h: int, w: int) -> np.ndarray:
    """(…, rows, columns, c) → (…, h, w, c), each position repeated; the new grid is a multiple."""
    rows, columns = features.shape[-3:-1]
    return features.repeat(h // rows, axis=-3).repeat(w // columns, axis=-2)


def ceiling(masks: np.ndarray, rows: int, columns: int) -> float:
    """The best mean IoU with masks (n, h, w) of what a coarser grid can show: its positions that
    they cover by more than some share, the best for each."""
    share = resize_by_area(masks, rows, columns)[..., None]
    return float(best_iou(on_grid(share, *masks.shape[1:])[..., 0], masks)[0].mean())


def places(h: int, w: int) -> np.ndarray:
    """Each position's row and column, from −1 to 1, their squares and their product, (h, w, 5)."""
    row, column = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    return np.stack([row, column, row**2, column**2, row * column], axis=-1)


# --- components --------------------------------------------------------------------------------


def components(features: np.ndarray, count: int = 3) -> np.ndarray:
    """Principal components of the features, each step's mean taken away, so that a colour means
    the same in all steps: (steps, h, w, c) → (steps, h, w, count), each from 0 to 1 but for the
    most extreme hundredths."""
    centred = np.asarray(features, np.float64) - features.mean((1, 2), keepdims=True)
    flat = centred.reshape(-1, centred.shape[-1])
    _, vectors = np.linalg.eigh(flat.T @ flat)  # the smallest first
    found = centred @ vectors[:, ::-1][:, :count]
    low, high = np.quantile(found.reshape(-1, count), [0.01, 0.99], axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.clip((found - low) / span, 0, 1)


def likeness(features: np.ndarray) -> np.ndarray:
    """The cosine between each step's features and the last one's, (steps, h, w, c) → (steps,), when
    the mean over positions is taken away: 1 where the layout is what it will be."""
    centred = np.asarray(features, np.float64) - features.mean((1, 2), keepdims=True)
    flat = centred.reshape(len(centred), -1)
    return (
        flat @ flat[-1] / np.maximum(np.linalg.norm(flat, axis=1) * np.linalg.norm(flat[-1]), 1e-12)
    )
