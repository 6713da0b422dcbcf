"""What linear probes learn of the phantom's world: scenes of two things side by side, whose masks
are known, under noise."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from phantom.world import Scene, masks, render, scenes, side_of
from xray.measure import covered
from xray.methods.drawing import encode
from xray.methods.linear_probe import (
    Lesson,
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

LATENT, PLACE = "latent x_t", "place alone"  # what a block must beat


def probe_scenes(
    sd: "StableDiffusion", blocks: Sequence[str], times: Sequence[int], number: int, seed: int
) -> Scores:
    """Probes of what blocks make of noised scenes, fitted on so many and scored on half as many."""
    some = side_by_side(seed, number + number // 2)
    images = np.stack([render(scene) for scene in some])
    x0, context = encode(sd, images), sd.encode_text([scene.caption for scene in some])
    noisy, features = read_noised(sd, blocks, x0, context, times, seed)
    h, w = x0.shape[1:3]
    place = np.broadcast_to(places(h, w), (*noisy.shape[:4], 5))
    features = {LATENT: noisy, PLACE: place, **features}
    lesson = learn_masks(some, h, w)
    rng = np.random.default_rng([seed, 1])
    found = {
        name: np.stack([examine(on_grid(at, h, w), lesson, number, rng) for at in values])
        for name, values in features.items()
    }  # name → (times, 3, scenes)
    best = max(blocks, key=lambda block: found[block][:, 0].mean())
    grids = {name: values.shape[2:4] for name, values in features.items()}
    unseen = lesson.things[number:]
    return Scores(
        times,
        *({name: rows[:, i] for name, rows in found.items()} for i in range(3)),
        {name: ceiling(unseen, *grid) for name, grid in grids.items()},
        unseen.mean((1, 2)),
        best,
        images[number],
        unseen[0],
        np.stack([draw_mask(on_grid(at, h, w), lesson, number) for at in features[best]]),
    )


def side_by_side(seed: int, number: int) -> list[Scene]:
    """Scenes of two things, the left one first."""
    level = (
        replace(scene, things=tuple(sorted(scene.things, key=lambda thing: thing.column)))
        for scene in scenes(seed, 8 * number, count=2)
        if side_of(*scene.things) in ("left of", "right of")
    )
    return [*islice(level, number)]


def learn_masks(some: Sequence[Scene], h: int, w: int) -> Lesson:
    """Where the left and the right thing of each scene are, on a grid."""
    known = [masks(scene) for scene in some]
    left, right = (
        np.stack([covered(m[s.things[i].name], h, w) for m, s in zip(known, some, strict=True)])
        for i in (0, 1)
    )
    return Lesson(left | right, left, right)
