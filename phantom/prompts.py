"""What a prompt of the phantom's world asks for, and which pictures show it.

A picture gets three marks, each found by template matching (phantom/judge.py): its things, its
background, and the side on which the first thing stands of the second. What the prompt does not ask
for is not marked; a thing that is there twice is not right.
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from phantom.judge import MARGIN, Findings, judge
from phantom.world import BACKGROUNDS, FAMILY, SIDE, SIDES, SIZES, THINGS, scenes, side_of
from stable_diffusion_tf.errors import UsageError
from xray.measure import Estimate, share_of

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

WHERE = {wording: side for side, wordings in SIDES.items() for wording in wordings}
LEARNED = sorted({FAMILY[name] for name in THINGS})


def one_of(words) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


THING = rf"\b({one_of(THINGS)})\b"
ASKED_SIDE = re.compile(rf"{THING} ({one_of(WHERE)}) an? (?:\w+ )?{THING}")
PHRASE = rf"an? (?:(?:{one_of(filter(None, SIZES))}) )?(?:{one_of([*THINGS, *LEARNED])})"
GROUND = rf"(?:{one_of(BACKGROUNDS)})"
SENTENCE = re.compile(
    rf"{PHRASE}(?: (?:{one_of([*WHERE, 'and'])}) {PHRASE})?"
    rf"(?: on a {GROUND} background| on {GROUND}|, {GROUND} background)?"
)
GRAMMAR = f"""a [size] thing [side a [size] thing] [on a colour background]
size    {", ".join(filter(None, SIZES))}
thing   {", ".join(THINGS)}
        or a family: {", ".join(LEARNED)}
side    {", ".join([*SIDES, "and"])}
colour  {", ".join(BACKGROUNDS)}"""


MANY = 4  # things that are looked for where one may be drawn twice
STRANGE = (
    "the words are known, but not the sentence: things come in the colours that they were learned "
    "in, one or two at a time; text2image.py --list shows the words and the grammar"
)


class Asked(NamedTuple):
    """The things that a prompt names, its background, and where which stands of which."""

    things: frozenset[str]
    background: str | None
    side: tuple[str, str, str] | None  # 'rabbit', 'left of', 'cat'


class Marks(NamedTuple):
    """Whether each of n pictures is right, (n,) bool each; None where that was not asked for."""

    things: np.ndarray
    background: np.ndarray | None
    side: np.ndarray | None

    @property
    def right(self) -> np.ndarray:
        """All that was asked for, (n,) bool."""
        return np.logical_and.reduce([mark for mark in self if mark is not None])


def of_its_world(prompt: str) -> bool:
    """Whether it is a sentence that the phantom may have been trained on."""
    return SENTENCE.fullmatch(" ".join(prompt.lower().split())) is not None


def examples(seed: int, number: int, things: tuple[str, ...] = THINGS) -> list[str]:
    """Captions that say all of their scene, of one thing and of two by turns."""
    some = (scenes(seed, 4 * number, count=n, things=things) for n in (1, 2))
    drawn = ([scene.caption for scene in of_count] for of_count in some)
    single, double = ([text for text in some if all(asked(text)[:2])] for some in drawn)
    double = [text for text in double if asked(text).side]
    return [*chain(*zip(single, double, strict=False))][:number]


def asked(prompt: str) -> Asked:
    said = " ".join(prompt.lower().split())
    things = frozenset(re.findall(THING, said))
    ground = re.search(rf"\bon ({GROUND})\b|\b({GROUND}) background\b", said)
    side = ASKED_SIDE.search(said)
    return Asked(
        things,
        ground and (ground[1] or ground[2]),
        (side[1], WHERE[side[2]], side[3]) if side and side[1] != side[3] else None,
    )


def marks(images: np.ndarray, prompt: str) -> Marks | None:
    """The marks of pictures (n, H, W, 3) uint8. None where the prompt names no thing that was
    learned, or the pictures are not of the size of the phantom's world."""
    wanted = asked(prompt)
    if not wanted.things or images.shape[1:3] != (SIDE, SIDE):
        return None
    found = [judge(image, len(wanted.things) + 1) for image in images]
    return Marks(
        np.array([shows(one, wanted) for one in found]),
        wanted.background and np.array([one.background == wanted.background for one in found]),
        wanted.side and np.array([stands(one, wanted) for one in found]),
    )


def shown(images: np.ndarray, prompt: str) -> np.ndarray | None:
    """Whether pictures show all that a prompt asks for, (n,) bool; None as for `marks`."""
    judged = marks(images, prompt)
    return None if judged is None else judged.right


def counts(images: np.ndarray, prompt: str) -> dict[str, Estimate]:
    """Mark → how many of the pictures have it, of those that the prompt asks for; {} where nothing
    can be told, as for `marks`."""
    judged = marks(images, prompt)
    told = {} if judged is None else judged._asdict()
    return {name: share_of(mark) for name, mark in told.items() if mark is not None}


def counts_of_each(images: np.ndarray, prompts: Sequence[str]) -> dict[str, Estimate]:
    """As `counts`, of pictures (n, H, W, 3) with a prompt each."""
    judged = [marks(one[None], prompt) for one, prompt in zip(images, prompts, strict=True)]
    if None in judged:
        return {}
    found = {
        name: [mark for one in judged if (mark := getattr(one, name)) is not None]
        for name in Marks._fields
    }
    return {name: share_of(np.array(some)) for name, some in found.items() if some}


def as_asked(images: np.ndarray, prompt: str) -> dict[str, Estimate]:
    """How many pictures show all that was asked for, as a cell of a table; {} as `counts`."""
    right = shown(images, prompt)
    return {} if right is None else {"as asked": share_of(right)}


def mask_between(images: np.ndarray, prompt: str, other: str, unknown: np.ndarray) -> np.ndarray:
    """Where pictures (n, H, W, 3) uint8 of a prompt show what another does not ask for, (n, H, W)
    bool: the squares in which its things are found, or, where both name the same things, all but
    theirs. `unknown`, (n, H, W), where nothing is found."""
    if images.shape[1:3] != (SIDE, SIDE):
        return unknown
    wanted, things = asked(prompt), asked(prompt).things - asked(other).things
    named = things or wanted.things
    squares = np.zeros_like(unknown)
    for square, image in zip(squares, images, strict=True):
        for thing in (match.thing for match in judge(image, MANY).matches):
            if thing.name in named:
                top, left = max(thing.row - MARGIN, 0), max(thing.column - MARGIN, 0)
                ends = (start + thing.side + MARGIN for start in (thing.row, thing.column))
                square[top : next(ends), left : next(ends)] = True
    found = squares.any((1, 2), keepdims=True)
    return np.where(found, squares if things else ~squares, unknown)


def is_phantom(sd: "StableDiffusion") -> bool:
    """Whether it draws the phantom's world: pictures of its size, from few words."""
    return sd.size == SIDE and not sd.known_tokens.all()


def check_size(sd: "StableDiffusion") -> None:
    """Raises UsageError for a model whose pictures the judge does not know."""
    if sd.size != SIDE:
        raise UsageError(f"these weights draw {sd.size} pixels, and the phantom's world has {SIDE}")


def known_things(sd: "StableDiffusion") -> tuple[str, ...]:
    """The things whose words the model was trained on."""
    return tuple(name for name in THINGS if not sd.unknown_words(name))


def not_read(sd: "StableDiffusion", prompt: str) -> list[str]:
    """What a model will not read as it is meant, a line each: words that do not fit into its 77
    tokens, words that it never learned, and, of the phantom, sentences of another world."""
    lines = [f"only 75 tokens fit; cut: {rest}"] if (rest := sd.tokenizer.cut(prompt)) else []
    strange = sd.unknown_words(prompt)
    for word, near in strange.items():
        lines.append(f"the model never saw '{word}'" + f"; it knows {', '.join(near)}" * bool(near))
    return lines if strange or not is_phantom(sd) or of_its_world(prompt) else [*lines, STRANGE]


def shows(found: Findings, wanted: Asked) -> bool:
    """Each thing once, and no other."""
    return sorted(match.thing.name for match in found.matches) == sorted(wanted.things)


def stands(found: Findings, wanted: Asked) -> bool:
    places = {match.thing.name: match.thing for match in found.matches}
    first, side, second = wanted.side
    return {first, second} <= places.keys() and side_of(places[first], places[second]) == side
