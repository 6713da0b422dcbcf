"""Directions among the channels of the UNet's features: found, and added in each step."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError
from xray.rounding import Held, hold, redrawn

from .drawing import draw, parts_that_fit

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

BLOCKS = re.compile(r"unet\.(down_blocks\.\d+\.attentions\.0|mid_block|up_blocks\.\d+)")
GRID = ("half", "row", "column", "channel")

Vectors = Mapping[str, np.ndarray]  # address → (steps, b, channels), for each picture of a batch
Steer = Callable[[np.ndarray, np.ndarray, dict, Vectors], np.ndarray]


class Steered(NamedTuple):
    """Runs of n noises: of the prompt, of the other one, and of both with the direction shuffled;
    and those with nothing added, of both prompts, and of both with the other word."""

    place: str
    direction: np.ndarray  # (steps, channels)
    reach: dict[str, np.ndarray]  # place → how far its direction goes at scale 1, (n,)
    latents: np.ndarray  # (scales, 4, n, h, w, 4)
    plain: np.ndarray  # (4, n, h, w, 4)


def find_places(sd: "StableDiffusion", more: str | None = None) -> dict[str, tuple[int, ...]]:
    """Address → shape of what the blocks of the UNet give out, in order of execution, and of one
    more place. Raises UsageError where that has no positions and channels."""
    from xray.probe import taps
    from xray.probe.addresses import check_patterns

    known = {tap.address: tap for tap in taps(sd) if tap.address.startswith("unet.")}
    if more is not None and more not in known:
        check_patterns([more], [*known])
    if more is not None and (more not in known or known[more].dims != GRID):
        raise UsageError(f"{more!r} is no single map of features; try unet.mid_block")
    return {
        address: tap.shape[1:]
        for address, tap in known.items()
        if address == more or BLOCKS.fullmatch(address)
    }


def read_means(
    sd: "StableDiffusion",
    places: Sequence[str],
    contexts: np.ndarray,
    noise: np.ndarray,
    run: dict,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The features' means over positions, in the prompt's half, address → (steps, b,
    channels), and where the runs end, (b, h, w, 4); arguments as for `drawing.draw`."""
    from xray.probe import Mean, Probe
    from xray.probe.instrumented import instrument

    seen, means, ends = instrument(sd, Probe([*places], Mean(("row", "column")))), [], []
    for part in parts_that_fit(sd, noise):
        read = []
        for step in seen.denoise(contexts[part], latent=noise[part], **run):
            read.append({place: seen.reads[place][-len(part) :] for place in places})
            last = step.x_prev
        means.append({place: np.stack([one[place] for one in read]) for place in places})
        ends.append(last)
    joined = {place: np.concatenate([some[place] for some in means], axis=1) for place in places}
    return joined, np.concatenate(ends)


def steering(sd: "StableDiffusion", shapes: Mapping[str, tuple[int, ...]]) -> Steer:
    """A function that draws as `drawing.draw` does, and in each step adds vectors to all
    positions of these places, in the prompt's half; those that are not told stay as they are.

    shapes: address → (h, w, channels).
    """
    from xray.probe import Edit, Feed, PerStep
    from xray.probe.instrumented import instrument

    feed = Feed()
    steered = instrument(sd, edits=Edit([*shapes], operator.add, source=feed))

    def steer(contexts: np.ndarray, noise: np.ndarray, run: dict, added: Vectors) -> np.ndarray:
        ends = []
        for part in parts_that_fit(sd, noise):
            some = {place: vectors[:, part] for place, vectors in added.items()}
            feed(PerStep(partial(vectors_at, some, shapes, len(part)), run["steps"]))
            ends.append(draw(steered, contexts[part], noise[part], run))
        return np.concatenate(ends)

    return steer


def vectors_at(
    added: Vectors, shapes: Mapping[str, tuple], batch: int, step: int
) -> dict[str, np.ndarray]:
    """What a step of steered runs adds; arguments as for `over_positions`."""
    now = {place: vectors[step] for place, vectors in added.items()}
    return over_positions(now, shapes, batch)


def over_positions(
    vectors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple], batch: int
) -> dict[str, np.ndarray]:
    """Vectors (b, channels) for all positions of the prompt's half, zeros in the other and in
    places that have none: address → (2 · b, h, w, channels)."""
    made = {}
    for place, (*grid, channels) in shapes.items():
        rows = np.zeros((2 * batch, 1, 1, channels), np.float32)
        if place in vectors:
            rows[-batch:, 0, 0] = vectors[place]
        made[place] = np.broadcast_to(rows, (len(rows), *grid, channels))
    return made


def steer_all(
    sd: "StableDiffusion",
    contexts: np.ndarray,
    noise: np.ndarray,
    shapes: dict[str, tuple[int, ...]],
    place: str | None,
    scales: Sequence[float],
    run: dict,
) -> Steered:
    """contexts: (4, 77, width), of both prompts, and of both with the other word; noise: (3 · n, h,
    w, 4), of which the first n are drawn and the others make the direction; place: None chooses."""
    new, known = np.split(noise, [len(noise) // 3])
    n, groups = len(new), (4, *new.shape)
    directions, ends = find_directions(sd, [*shapes], contexts[::2], known, run)
    plain = draw(sd, np.repeat(contexts, n, 0), np.concatenate([new] * 4), run)
    steered = *rows_of(contexts, noise), run
    steer = steering(sd, shapes)
    reach = try_places(steer, directions, contexts[:1], known[:n], ends[:, :n], run)
    place = place or max(reach, key=lambda at: reach[at].mean())
    added = with_shuffled(directions[place], n)
    latents = [steer(*steered, {place: np.float32(scale) * added}) for scale in scales]
    latents = np.stack(latents).reshape(-1, *groups)
    return Steered(place, directions[place], reach, latents, plain.reshape(groups))


def hold_still(
    sd: "StableDiffusion", contexts: np.ndarray, noise: np.ndarray, still: np.ndarray, run: dict
) -> Held:
    """Where runs end that are steered by zero, (4, n, h, w, 4), beside those that are not steered;
    other arguments as for `steer_all`."""
    rows = *rows_of(contexts, noise), run
    plain, again = draw(sd, *rows), redrawn(sd, *rows)
    return hold(still.reshape(plain.shape), plain, [plain, again])


def rows_of(contexts: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a steered batch as `steer_all` draws them: both prompts, and both once more with
    the direction shuffled, from the first third of the noise; arguments as for `steer_all`."""
    n = len(noise) // 3
    return np.repeat(contexts[[0, 1, 0, 1]], n, 0), np.concatenate([noise[:n]] * 4)


# --- directions --------------------------------------------------------------------------------


def find_directions(
    sd: "StableDiffusion",
    places: Sequence[str],
    contexts: np.ndarray,
    noise: np.ndarray,
    run: dict,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the features have more with the second context (2, 77, width) than with the first, in
    the mean over noises: place → (steps, channels); and where the runs end, (2, b, h, w, 4)."""
    both = np.repeat(contexts, len(noise), axis=0), np.concatenate([noise, noise])
    means, ends = read_means(sd, places, *both, run)
    halves = {place: np.split(found, 2, axis=1) for place, found in means.items()}
    directions = {place: (second - first).mean(1) for place, (first, second) in halves.items()}
    return directions, ends.reshape(2, *noise.shape)


def with_shuffled(direction: np.ndarray, pictures: int) -> np.ndarray:
    """(steps, channels) → (steps, 4 · pictures, channels): for the first half the direction, and
    for each of the others its numbers in a new order and with new signs, the same in all steps."""
    rng = np.random.default_rng(0)
    channels = direction.shape[-1]
    orders = np.stack([rng.permutation(channels) for _ in range(2 * pictures)])
    signs = rng.choice(np.float32([-1, 1]), orders.shape)
    same = np.repeat(direction[:, None], 2 * pictures, 1)
    return np.concatenate([same, direction[:, orders] * signs], axis=1)


def try_places(
    steer: Steer,
    directions: Mapping[str, np.ndarray],
    context: np.ndarray,
    noise: np.ndarray,
    ends: np.ndarray,
    run: dict,
) -> dict[str, np.ndarray]:
    """Place → how far its direction alone goes at scale 1, (n,), from these noises, (n, h, w, 4).

    ends: where they end without it, and where they should, (2, n, h, w, 4).
    """
    count, n = len(directions), len(noise)
    added = {}
    for i, (place, direction) in enumerate(directions.items()):
        rows = np.zeros((len(direction), count * n, direction.shape[-1]), np.float32)
        rows[:, i * n : (i + 1) * n] = direction[:, None]
        added[place] = rows
    latents = steer(np.repeat(context, count * n, 0), np.concatenate([noise] * count), run, added)
    shares = share_of_way(latents.reshape(count, *noise.shape), *ends)
    return dict(zip(directions, shares, strict=True))


def share_of_way(x: np.ndarray, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """How far latents (…, h, w, c) are on the straight way from a start to a goal: 0 there, 1 here;
    what they moved aside does not count. (…)"""
    way = (goal - start).astype(np.float64)
    return np.sum((x - start) * way, axis=(-3, -2, -1)) / np.sum(way**2, axis=(-3, -2, -1))


def fit_lines(scales: Sequence[float], shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and R² of a straight line for each picture, (scales, n) → (n,), (n,)."""
    x = np.array(scales) - np.mean(scales)
    y = shares - shares.mean(0)
    slope = x @ y / (x @ x)
    rest, whole = (np.sum(v**2, axis=0) for v in (y - np.outer(x, slope), y))
    return slope, 1 - np.divide(rest, whole, out=np.ones_like(rest), where=whole > 0)
