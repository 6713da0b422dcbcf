"""Pictures of one sprite alone, whether or not the phantom was trained on it, and how much a
picture looks like it."""

import numpy as np

from phantom.judge import background_colour
from phantom.world import (
    BACKGROUNDS,
    SIZES,
    Scene,
    Thing,
    blends_in,
    put,
    render,
    sprite,
    with_article,
)


def fitting(name: str) -> list[str]:
    """The backgrounds on which the sprite is seen."""
    return [ground for ground in BACKGROUNDS if not blends_in(name, ground)]


def portraits(
    name: str, word: str, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Pictures of the sprite in any place and size, (number, 64, 64, 3) uint8, and captions that
    call it by a word."""
    grounds = [str(ground) for ground in rng.choice(fitting(name), number)]
    things = [put(rng, name, tuple(SIZES)) for _ in grounds]
    images = [portrait(ground, thing) for ground, thing in zip(grounds, things, strict=True)]
    captions = [
        f"{with_article(f'{thing.size} {word}'.strip())} on a {ground} background"
        for ground, thing in zip(grounds, things, strict=True)
    ]
    return np.stack(images), captions


def portrait(ground: str, thing: Thing) -> np.ndarray:
    return render(Scene(ground, BACKGROUNDS[ground], (thing,), ""))


def likeness(image: np.ndarray, name: str) -> float:
    """The best match of a sprite, by name, at any size and place of an image (H, W, 3) uint8.

    As the judge scores: 2⟨D, T⟩ / (|D|² + |T|²) with D the image and T the sprite, both less the
    image's background, inside of the sprite's square; 1 is the sprite itself.
    """
    image = image.astype(np.float32) / 255
    colour = background_colour(image)
    return max(match(image - colour, sprite(name, side), colour) for side in SIZES.values())


def match(image: np.ndarray, ink: np.ndarray, colour: np.ndarray) -> float:
    """image: (H, W, 3) less its background's colour (3,); ink: (side, side, 4), premultiplied."""
    wanted = ink[..., :3] - ink[..., 3:] * colour
    squares = np.lib.stride_tricks.sliding_window_view(image, ink.shape[:2], (0, 1))
    common = np.einsum("yxcij,ijc->yx", squares, wanted, optimize=True)
    energy = np.sum(squares**2, axis=(2, 3, 4))
    return float(np.max(2 * common / (energy + np.sum(wanted**2))))
