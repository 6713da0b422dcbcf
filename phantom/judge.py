"""Judges a picture of the phantom's world by the sprites themselves.

The background is the colour that most of the picture has. Each thing, at each size and each place,
is laid on that background and compared with the picture; the best matches that do not overlap
say what is there and where.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from phantom.world import BACKGROUNDS, SIDE, SIZES, THINGS, Scene, Thing, side_of, sprite

# The score from which on a match counts. Accepted as the one thing that a scene names: blank and
# noise 0 %, another sprite 0 %, an unlearned one 1 %, a disc or an ellipse of a random colour 1 to
# 3 %. The weak spot is the right colour in a rough shape: a disc in the thing's own colour 21 %, an
# ellipse 32 % (12 % where two things are named); of 2 px blur 92 %, of 4 px 42 %.
FLOOR = 0.8
MARGIN = 2  # pixels around a sprite that must be background
OVER = 4  # pixels by which a thing may stand over the edge of the picture
CANVAS = 80  # side of the Fourier transforms; no template wraps around
SHARED = 0.2  # of the smaller square: matches that share more are of one and the same thing
MOST = 3  # matches that are looked for: one more than a scene has things
NEAR = 30 / 255  # from the colour of the background: what still belongs to it


@dataclass(frozen=True)
class Match:
    """A thing found in a picture; a score of 1 is the sprite itself."""

    thing: Thing
    score: float


@dataclass(frozen=True)
class Findings:
    """What a picture shows: its background's name and colour, and matches, the best first."""

    background: str
    colour: tuple[int, int, int]
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class Verdict:
    """What of a scene a picture gets right: all its things, their sides, its background."""

    shown: bool
    side: bool
    background: bool


def verdict(scene: Scene, findings: Findings) -> Verdict:
    """Each thing of the scene once and no other, so more must have been looked for; the side counts
    only where both are shown."""
    found = {m.thing.name: m.thing for m in findings.matches}
    shown = sorted(m.thing.name for m in findings.matches) == sorted(t.name for t in scene.things)
    side = shown and len(found) == 2 and stand_alike(scene, found)
    return Verdict(shown, side, findings.background == scene.background)


def stand_alike(scene: Scene, found: dict[str, Thing]) -> bool:
    a, b = scene.things
    return side_of(found[a.name], found[b.name]) == side_of(a, b)


def judge(picture: np.ndarray, most: int = MOST, things: tuple[str, ...] = THINGS) -> Findings:
    """The background and up to `most` of the `things` in a picture, (64, 64, 3) uint8."""
    picture = picture.astype(np.float32) / 255
    colour = background_colour(picture)
    far = {name: np.linalg.norm(colour * 255 - rgb) for name, rgb in BACKGROUNDS.items()}
    matches = best_matches(score_maps(picture, colour, things), most, things)
    return Findings(min(far, key=far.get), tuple(int(c) for c in np.rint(colour * 255)), matches)


def background_colour(picture: np.ndarray) -> np.ndarray:
    """The colour with most of the picture near it: (H, W, 3) in [0, 1] → (3,)."""
    points = picture[2::4, 2::4].reshape(-1, 3)
    near = np.sum((points[:, None] - points) ** 2, axis=-1) < NEAR**2
    chosen = points[np.argmax(near.sum(1))]
    pixels = picture.reshape(-1, 3)
    return np.median(pixels[np.sum((pixels - chosen) ** 2, axis=-1) < NEAR**2], axis=0)


@lru_cache(maxsize=2)
def templates(things: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The sprites, colour and opacity, at every size: their conjugate spectra
    (sizes, things, 4, CANVAS, CANVAS/2 + 1), and the inner products of their four channels
    (sizes, things, 4, 4)."""
    ink = np.zeros((len(SIZES), len(things), 4, CANVAS, CANVAS), np.float32)
    for i, side in enumerate(SIZES.values()):
        inside = slice(MARGIN, MARGIN + side)
        for j, name in enumerate(things):
            ink[i, j, :, inside, inside] = sprite(name, side).transpose(2, 0, 1)
    return np.conj(np.fft.rfft2(ink)), np.einsum("stahw,stbhw->stab", ink, ink)


def score_maps(
    picture: np.ndarray, colour: np.ndarray, things: tuple[str, ...]
) -> list[np.ndarray]:
    """Size by size the score of each thing at each place, (things, rows, columns); row and column
    0 stand for −OVER.

    The score is 2⟨D, T⟩ / (|D|² + |T|²) with D the picture and T the sprite, both less the
    background, in the sprite's square and MARGIN around it: a correlation that also falls when
    the contrast is wrong, as a plain normalised one does not.
    """
    spectra, products = templates(things)
    rest = np.zeros((3, CANVAS, CANVAS), np.float32)
    inside = slice(OVER + MARGIN, OVER + MARGIN + SIDE)
    rest[:, inside, inside] = (picture - colour).transpose(2, 0, 1)
    # on a background, a sprite less the background is colour − opacity · background
    less = np.vstack([np.eye(3), -colour]).astype(np.float32)  # (4, 3)
    seen = np.einsum("ac,chw->ahw", less, np.fft.rfft2(rest))
    product = sum(spectra[:, :, a] * seen[a] for a in range(4))
    common = np.fft.irfft2(product, (CANVAS, CANVAS))
    sprite_energy = np.einsum("ac,stab,bc->st", less, products, less)
    total = np.zeros((CANVAS + 1, CANVAS + 1))
    total[1:, 1:] = np.sum(rest**2, axis=0, dtype=np.float64).cumsum(0).cumsum(1)
    maps = []
    for i, side in enumerate(SIZES.values()):
        square, places = side + 2 * MARGIN, SIDE - side + 2 * OVER + 1
        a, b = slice(0, places), slice(square, square + places)
        energy = total[b, b] - total[a, b] - total[b, a] + total[a, a]
        both = energy + sprite_energy[i][:, None, None]
        maps.append(2 * common[i, :, :places, :places] / both)
    return maps


def best_matches(maps: list[np.ndarray], most: int, things: tuple[str, ...]) -> tuple[Match, ...]:
    """The highest scores, one after the other, at places that do not overlap; changes the maps."""
    found = []
    while len(found) < most:
        best = int(np.argmax([m.max() for m in maps]))
        index, y, x = np.unravel_index(np.argmax(maps[best]), maps[best].shape)
        score = float(maps[best][index, y, x])
        if score < FLOOR:
            break
        thing = Thing(things[index], list(SIZES)[best], int(y) - OVER, int(x) - OVER)
        found.append(Match(thing, score))
        for scores, side in zip(maps, SIZES.values(), strict=True):
            at = np.arange(scores.shape[1]) - OVER
            down, across = (
                np.minimum(at + side, start + thing.side) - np.maximum(at, start)
                for start in (thing.row, thing.column)
            )
            shared = np.outer(np.clip(down, 0, None), np.clip(across, 0, None))
            scores[:, shared > SHARED * min(side, thing.side) ** 2] = -1
    return tuple(found)
