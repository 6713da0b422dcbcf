"""Pictures of two things whose every word has a known mask, for methods to be held against.

Either scenes of the phantom's world, noised, which the model looks at with their prompts; or
pictures that it draws from such prompts, where a word's mask is where the picture leaves its
background, around the sprite that the judge finds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from phantom.judge import NEAR, judge
from phantom.prompts import known_things
from phantom.world import (
    BACKGROUNDS,
    SIDE,
    THINGS,
    Scene,
    blends_in,
    for_evaluation,
    masks,
    render,
    scenes,
    wording,
)
from stable_diffusion_tf import scheduler
from stable_diffusion_tf.images import to_uint8
from xray.attention import TIMES, phrases
from xray.measure import resize_by_area

from .case import Beginning, Case

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

CELLS = 16  # rows and columns of the latent
NOISED = 0.3  # of a run's steps are left where a scene is drawn once more
GUIDANCE = 4.0


class Example(NamedTuple):
    """A case and what is known of it: for each word its mask, (64, 64) bool, and how much of the
    picture is lost, place by place, where the word is exchanged, (16, 16) in colours of 255; None
    of a picture that the model drew."""

    case: Case
    masks: dict[str, np.ndarray]
    losses: dict[str, np.ndarray] | None

    @property
    def things(self) -> list[str]:
        return [word for word in self.masks if word not in BACKGROUNDS]


def told(sd: "StableDiffusion", number: int, seed: int) -> list[Scene]:
    """Held-out scenes of two things that the model knows."""
    return scenes(seed, number, for_evaluation, 2, known_things(sd))


# --- scenes ------------------------------------------------------------------------------------


def looked_at(
    sd: "StableDiffusion", some: Sequence[Scene], seed: int, steps: int
) -> Iterator[Example]:
    """Scenes with noise at several timesteps."""
    for i, scene in enumerate(some):
        picture, prompt = render(scene), wording(scene)
        rng = np.random.default_rng([seed, i])
        latent = np.repeat(sd.encode_image(picture[None]), len(TIMES), axis=0)
        noise = rng.standard_normal(latent.shape, dtype=np.float32)
        x = scheduler.add_noise(latent, noise, np.array(TIMES), sd.alphas)
        known = masks(scene)
        case = Case(
            sd,
            prompt,
            places(sd, prompt, known),
            picture,
            x.astype(np.float32),
            np.array(TIMES),
            noised(sd, latent[0], noise[0], steps),
        )
        yield Example(case, known, {word: lost(scene, word, rng) for word in known})


def noised(sd: "StableDiffusion", latent: np.ndarray, noise: np.ndarray, steps: int) -> Beginning:
    """From where the scene can be drawn once more, its places kept."""
    start = round((1 - NOISED) * steps) if steps > 1 else 0
    x = scheduler.add_noise(latent, noise, sd.timesteps(steps)[start], sd.alphas)
    return Beginning(x.astype(np.float32), run_of(sd, steps) | {"start": start})


def run_of(sd: "StableDiffusion", steps: int) -> dict:
    uncond = sd.encode_text([""])
    return {"uncond": uncond, "steps": steps, "guidance": GUIDANCE, "progress": lambda rows: rows}


def lost(scene: Scene, word: str, rng: np.random.Generator) -> np.ndarray:
    """How far the scene is, place by place, from one in which the word is another: (16, 16)."""
    other = np.abs(render(scene).astype(float) - render(exchanged(scene, word, rng)))
    return resize_by_area(other.mean(-1), CELLS, CELLS)


def exchanged(scene: Scene, word: str, rng: np.random.Generator) -> Scene:
    """The scene with another thing in the place of the one that the word names, or on another
    background; nothing blends into its background."""
    names = [thing.name for thing in scene.things]
    if word == scene.background:
        free = [c for c in BACKGROUNDS if c != word and not any(blends_in(n, c) for n in names)]
        colour = str(rng.choice(free))
        return replace(scene, background=colour, colour=BACKGROUNDS[colour])
    free = [n for n in THINGS if n not in names and not blends_in(n, scene.background)]
    name = str(rng.choice(free))
    things = tuple(replace(t, name=name) if t.name == word else t for t in scene.things)
    return replace(scene, things=things)


# --- pictures that the model draws -------------------------------------------------------------


def drawn(sd: "StableDiffusion", some: Sequence[Scene], seed: int, steps: int) -> Iterator[Example]:
    """Pictures that the model draws from the prompts of scenes; of each the words that are found in
    it."""
    run, times = run_of(sd, steps), sd.timesteps(steps)
    kept = sorted({int(np.argmin(np.abs(times - t))) for t in TIMES})
    for i, scene in enumerate(some):
        prompt, noise = wording(scene), sd.draw_noise(seed + i, 1)
        shots = [*sd.denoise(sd.encode_text([prompt]), latent=noise, **run)]
        picture = to_uint8(sd.decode_latent(shots[-1].x_prev))[0]
        known = {word: mask for word, mask in masks_in(picture).items() if word in words_of(scene)}
        x = np.concatenate([shots[k].x for k in kept])
        case = Case(
            sd, prompt, places(sd, prompt, known), picture, x, times[kept], Beginning(noise[0], run)
        )
        if known:
            yield Example(case, known, None)


def words_of(scene: Scene) -> list[str]:
    return [thing.name for thing in scene.things] + [scene.background]


def masks_in(picture: np.ndarray) -> dict[str, np.ndarray]:
    """Word → (64, 64) bool, of the things and the background that the judge finds in a picture,
    (64, 64, 3) uint8: where it leaves its background, split by the squares of the sprites."""
    found = judge(picture)
    far = np.linalg.norm(picture.astype(float) - found.colour, axis=-1) / 255 > NEAR
    made, taken = {}, np.zeros((SIDE, SIDE), bool)
    for thing in (match.thing for match in found.matches):
        square = np.zeros((SIDE, SIDE), bool)
        top, left = max(thing.row, 0), max(thing.column, 0)  # it may stand over the edge
        square[top : thing.row + thing.side, left : thing.column + thing.side] = True
        made[thing.name] = square & far & ~taken
        taken |= square
    return made | {found.background: ~far}


def places(sd: "StableDiffusion", prompt: str, known: Mapping[str, object]) -> dict[str, list[int]]:
    """The places of the words that have a mask, in the masks' order."""
    found = dict(phrases(sd.tokenizer.words(prompt), [*known]))
    return {word: [*found[word]] for word in known}
