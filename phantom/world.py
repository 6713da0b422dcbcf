"""The phantom's world: scenes whose every word has a known mask.

A scene is a flat background with one or two things on it. The things are sprites (Fluent Emoji,
MIT licence, see SPRITES.md) at one of three sizes, placed on the grid of the latent, four pixels
apart, so that the same thing in two places has the same latent. Everything is drawn from a seed.

One pair of things in ten and one thing-and-background in ten never occur in training: they are
the held-out set, told apart by a checksum of the names, so it is the same on every machine.
"""

import csv
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SIDE = 64  # pixels, the side of a scene
GRID = 4  # pixels, one latent position

BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (20, 20, 20),
    "gray": (128, 128, 128),
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (52, 101, 221),
    "yellow": (250, 215, 60),
    "purple": (130, 70, 190),
    "pink": (250, 160, 200),
    "brown": (125, 80, 45),
}
SIZES = {"small": 24, "": 32, "big": 44}  # adjective → pixels; the plain size has no adjective
SIDES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
JITTER = 8  # of 255, how far a background strays from its colour
SPRITE_SIDE, SHEET_COLUMNS = 128, 13


def read_concepts() -> list[dict[str, str]]:
    """All things on the sprite sheet, in its order: name, family, and, yes or no, whether the
    phantom with registers learned it and whether the phantom did: only what is unlike all else."""
    with open(HERE / "concepts.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


CONCEPTS = read_concepts()
THINGS = tuple(c["name"] for c in CONCEPTS if c["learned"] == "yes")
OF_REGISTERS = tuple(c["name"] for c in CONCEPTS if c["registers"] == "yes")
FAMILY = {c["name"]: c["family"] for c in CONCEPTS}


@dataclass(frozen=True)
class Thing:
    """A sprite in its place: its name, its size's adjective and its top left corner in pixels."""

    name: str
    size: str
    row: int
    column: int

    @property
    def side(self) -> int:
        return SIZES[self.size]

    @property
    def centre(self) -> tuple[float, float]:
        return self.row + self.side / 2, self.column + self.side / 2

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.row, self.row + self.side), slice(self.column, self.column + self.side)


@dataclass(frozen=True)
class Scene:
    """A background (its name and the colour it came out as), things, and a caption."""

    background: str
    colour: tuple[int, int, int]
    things: tuple[Thing, ...]
    caption: str


# --- sprites -----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def sheet() -> np.ndarray:
    """The sprite sheet, (rows·128, columns·128, 4) uint8."""
    return np.asarray(Image.open(HERE / "sprites.png").convert("RGBA"))


@lru_cache(maxsize=4096)
def sprite(name: str, side: int) -> np.ndarray:
    """The sprite at a size: (side, side, 4) float32 in [0, 1], colour premultiplied by opacity."""
    index = next(i for i, c in enumerate(CONCEPTS) if c["name"] == name)
    row, column = (SPRITE_SIDE * n for n in divmod(index, SHEET_COLUMNS))
    full = sheet()[row : row + SPRITE_SIDE, column : column + SPRITE_SIDE].astype(np.float32) / 255
    full[..., :3] *= full[..., 3:]
    planes = [Image.fromarray(full[..., c]) for c in range(4)]
    small = np.stack([p.resize((side, side), Image.Resampling.BOX) for p in planes], axis=-1)
    small.flags.writeable = False
    return small


@lru_cache(maxsize=4096)
def blends_in(name: str, background: str) -> bool:
    """Whether a third of the thing would vanish: a banana on yellow."""
    picture = sprite(name, SIZES[""])
    inside = picture[..., 3] > 0.5
    colour = picture[inside][:, :3] / picture[inside][:, 3:]
    far = np.linalg.norm(colour - np.array(BACKGROUNDS[background]) / 255, axis=-1)
    return bool(np.mean(far < 0.25) > 1 / 3)


# --- what is held out --------------------------------------------------------------------------


def held_out(*names: str) -> bool:
    """Whether this pair (two things, or a thing and a background) never occurs in training."""
    return zlib.crc32("+".join(sorted(names)).encode()) % 10 == 0


def pairs_of(things: tuple[str, ...], background: str) -> list[tuple[str, str]]:
    return list(combinations(things, 2)) + [(thing, background) for thing in things]


def for_training(things: tuple[str, ...], background: str) -> bool:
    """A scene to train on: none of its pairs is held out."""
    return not any(held_out(*pair) for pair in pairs_of(things, background))


def for_evaluation(things: tuple[str, ...], background: str) -> bool:
    """A scene to be judged on: its pair of things, or the thing and its background, is new."""
    return held_out(*things) if len(things) == 2 else held_out(things[0], background)


# --- words -------------------------------------------------------------------------------------


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def phrase(thing: Thing, name: str | None = None) -> str:
    """'a small cat'; the size that is plain is not said."""
    return with_article(f"{thing.size} {name or thing.name}".strip())


def side_of(a: Thing, b: Thing) -> str:
    """Where a stands as seen from b, along the longer of the two distances."""
    down, right = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
    if abs(right) >= abs(down):
        return "left of" if right > 0 else "right of"
    return "above" if down > 0 else "below"


def write_caption(rng: np.random.Generator, background: str, things: tuple[Thing, ...]) -> str:
    """One of the wordings for a scene.

    Most captions name the background and, where there are two things, the side; one in seven
    leaves the background out, one in seven joins two things by 'and', one in twelve names the
    family instead of a lone thing ('an animal on a blue background').
    """
    place = f" on a {background} background", f" on {background}", f", {background} background"
    ending = "" if rng.random() < 1 / 7 else place[rng.choice(3, p=[0.6, 0.2, 0.2])]
    if len(things) == 1:
        family = FAMILY[things[0].name] if rng.random() < 1 / 12 else None
        return phrase(things[0], family) + ending
    a, b = things if rng.random() < 0.5 else things[::-1]
    if rng.random() < 1 / 7:
        return f"{phrase(a)} and {phrase(b)}{ending}"
    return f"{phrase(a)} {rng.choice(SIDES[side_of(a, b)])} {phrase(b)}{ending}"


def wording(scene: Scene) -> str:
    """'a small cat left of an apple on a red background': every prompt says everything."""
    said = phrase(scene.things[0])
    if len(scene.things) == 2:
        said += f" {side_of(*scene.things)} {phrase(scene.things[1])}"
    return f"{said} on a {scene.background} background"


# --- scenes ------------------------------------------------------------------------------------


def put(rng: np.random.Generator, name: str, sizes: tuple[str, ...]) -> Thing:
    size = str(rng.choice(sizes))
    row, column = GRID * rng.integers(0, (SIDE - SIZES[size]) // GRID + 1, size=2)
    return Thing(name, size, int(row), int(column))


def apart(a: Thing, b: Thing) -> bool:
    """Whether two things touch nowhere and stand clearly side by side or one above the other."""
    down, right = abs(a.centre[0] - b.centre[0]), abs(a.centre[1] - b.centre[1])
    return max(down, right) >= (a.side + b.side) / 2 and min(down, right) <= max(down, right) / 2


def draw_scene(
    rng: np.random.Generator,
    allowed: Callable[[tuple[str, ...], str], bool] = for_training,
    count: int | None = None,
    things: tuple[str, ...] = THINGS,
) -> Scene:
    """A random scene of `count` of the `things` (None: one or two) whose names pass `allowed`."""
    count = count or int(rng.integers(1, 3))
    while True:
        names = tuple(map(str, rng.choice(things, size=count, replace=False)))
        background = str(rng.choice(list(BACKGROUNDS)))
        if allowed(names, background) and not any(blends_in(n, background) for n in names):
            break
    sizes = tuple(SIZES) if count == 1 else ("small", "")
    while True:
        placed = tuple(put(rng, name, sizes) for name in names)
        if count == 1 or apart(*placed):
            break
    colour = np.clip(BACKGROUNDS[background] + rng.integers(-JITTER, JITTER + 1, size=3), 0, 255)
    caption = write_caption(rng, background, placed)
    return Scene(background, tuple(int(c) for c in colour), placed, caption)


def scenes(
    seed: int,
    number: int,
    allowed: Callable[[tuple[str, ...], str], bool] = for_training,
    count: int | None = None,
    things: tuple[str, ...] = THINGS,
) -> list[Scene]:
    """`number` scenes of `things` from a seed."""
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, allowed, count, things) for _ in range(number)]


def new_scenes(
    seed: int, number: int, size: int = SIDE, things: tuple[str, ...] = THINGS
) -> tuple[np.ndarray, list[str]]:
    """Scenes that training never showed: pictures (number, size, size, 3) uint8, and captions."""
    drawn = scenes(seed, number, for_evaluation, things=things)
    return render_all(drawn, size), [scene.caption for scene in drawn]


def render_all(drawn: Sequence[Scene], size: int = SIDE) -> np.ndarray:
    """The pictures of scenes, as large as a model's, (n, size, size, 3) uint8."""
    return enlarged(np.stack([render(scene) for scene in drawn]), size)


def enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Pictures (n, H, W, 3) uint8 as large as a model's."""
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in images])


def render(scene: Scene) -> np.ndarray:
    """The picture of a scene, (64, 64, 3) uint8."""
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = np.array(scene.colour, np.float32) / 255
    for thing in scene.things:
        ink = sprite(thing.name, thing.side)
        picture[thing.window] = picture[thing.window] * (1 - ink[..., 3:]) + ink[..., :3]
    return np.rint(picture * 255).astype(np.uint8)


def masks(scene: Scene) -> dict[str, np.ndarray]:
    """Word → (64, 64) bool: where each thing covers more than half of a pixel; the background
    is all that no thing covers."""
    found = {}
    for thing in scene.things:
        mask = np.zeros((SIDE, SIDE), bool)
        mask[thing.window] = sprite(thing.name, thing.side)[..., 3] > 0.5
        found[thing.name] = mask
    return found | {scene.background: ~np.any(list(found.values()), axis=0)}
