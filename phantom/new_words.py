"""Pictures to learn a new word from, and the word in use."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from phantom.portraits import fitting, likeness, portrait, portraits
from phantom.world import BACKGROUNDS, FAMILY, SIDE, THINGS, enlarged, put, with_article
from stable_diffusion_tf import scheduler
from xray.methods import drawing
from xray.pictures import read_pictures

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

RUN = {"steps": 12, "guidance": 4.0}
FIRST = 3  # the step that begins with a noised picture


def collect(
    thing: str, start: str, number: int, held: int, size: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Pictures (number + held, size, size, 3) uint8, captioned with the word to begin as; the last
    are to ask about. Of a folder, they are those to learn from, and only the noise is new."""
    if thing in FAMILY:
        images, captions = portraits(thing, start, number + held, np.random.default_rng(seed))
        return enlarged(images, size), captions
    found = read_pictures(Path(thing), size, number)
    rows = [np.resize(np.arange(len(found)), n) for n in (number, held)]
    return found[np.concatenate(rows)], [with_article(start)] * (number + held)


class Made(NamedTuple):
    """Pictures of other things, (n, H, W, 3) uint8; what each word draws, (words, n, …); and what
    it makes of the others."""

    others: np.ndarray
    drawn: np.ndarray
    changed: np.ndarray


def use(sd: "StableDiffusion", words: Sequence[str], thing: str, number: int, seed: int) -> Made:
    """Each word drawn from the same noises, and out of the same noised pictures of other things."""
    rng = np.random.default_rng([seed, 2])
    fits = fitting(thing) if thing in FAMILY else [*BACKGROUNDS]
    grounds = [*islice(cycle(fits), number)]
    others = [[n for n in THINGS if n != thing and g in fitting(n)] for g in grounds]
    names = [str(rng.choice(some)) for some in others]
    scenes = [portrait(g, put(rng, n, ("",))) for g, n in zip(grounds, names, strict=True)]
    others = enlarged(np.stack(scenes), sd.size)
    prompts = [f"{with_article(w)} on a {g} background" for w in words for g in grounds]
    *contexts, nothing = sd.encode_text([*prompts, ""])
    noise = sd.draw_noise(seed, number)
    clean = np.concatenate([sd.encode_image(image[None]) for image in others])
    noisy = scheduler.add_noise(clean, noise, sd.timesteps(RUN["steps"])[FIRST], sd.alphas)

    def make(x: np.ndarray, first: int) -> np.ndarray:
        run = {**RUN, "uncond": nothing[None], "start": first}
        made = drawing.paint(sd, np.stack(contexts), np.tile(x, (len(words), 1, 1, 1)), run)
        return made.reshape(len(words), number, *made.shape[1:])

    return Made(others, make(noise, 0), make(noisy, FIRST))


def compare(thing: str, words: Sequence[str], made: Made) -> dict[str, np.ndarray]:
    """Word → how alike its pictures are to the sprite, those drawn and those changed. Nothing
    where there is no sprite, or the pictures are not of the phantom's size."""
    if thing not in FAMILY or made.others.shape[1] != SIDE:
        return {}
    every = zip(words, np.concatenate(made[1:], axis=1), strict=True)
    return {word: np.array([likeness(image, thing) for image in some]) for word, some in every}
