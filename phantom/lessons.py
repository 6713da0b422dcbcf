"""What linear probes learn of the phantom's world: scenes of two things, whose masks are known,
under noise."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from phantom.prompts import known_things
from phantom.world import Scene, masks, render, scenes
from xray.measure import covered
from xray.methods.drawing import encode
from xray.methods.linear_probe import (
    Scores,
    ceiling,
    draw_mask,
    examine,
    on_grid,
    places,
    read_noised,
)

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

LATENT, PLACE = "latent x_t", "position alone"  # what a block must beat


def probe_scenes(
    sd: "StableDiffusion", blocks: Sequence[str], times: Sequence[int], number: int, seed: int
) -> Scores:
    """Probes of what blocks make of noised scenes, fitted on so many and scored on half as many."""
    some = scenes(seed, number + number // 2, count=2, things=known_things(sd))
    images = np.stack([render(scene) for scene in some])
    x0, context = encode(sd, images), sd.encode_text([scene.caption for scene in some])
    noisy, features = read_noised(sd, blocks, x0, context, times, seed)
    h, w = x0.shape[1:3]
    place = np.broadcast_to(places(h, w), (*noisy.shape[:4], 5))
    features = {LATENT: noisy, PLACE: place, **features}
    known = find_things(some, h, w)
    rng = np.random.default_rng([seed, 1])
    found = {
        name: np.stack([examine(on_grid(at, h, w), known, number, rng) for at in values])
        for name, values in features.items()
    }  # name → (times, 2, scenes)
    best = max(blocks, key=lambda block: found[block][:, 0].mean())
    grids = {name: values.shape[2:4] for name, values in features.items()}
    unseen = known[number:]
    return Scores(
        times,
        *({name: rows[:, i] for name, rows in found.items()} for i in range(2)),
        {name: ceiling(unseen, *grid) for name, grid in grids.items()},
        unseen.mean((1, 2)),
        best,
        images[number],
        unseen[0],
        np.stack([draw_mask(on_grid(at, h, w), known, number) for at in features[best]]),
    )


def find_things(some: Sequence[Scene], h: int, w: int) -> np.ndarray:
    """Where the things of each scene are, on a grid, (scenes, h, w) bool."""
    return np.stack([covered(~masks(scene)[scene.background], h, w) for scene in some])
