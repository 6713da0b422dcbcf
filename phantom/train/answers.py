"""What each word of a caption knows by itself: the questions asked of single vectors of a text
encoder's context, and the right answers.

A thing's word: its own name, its size, and whether it was named first. The side's words and the
word of the second thing, since a causal encoder hears no earlier of the side: where what was named
first and second stand. The colour's word: the background. No other vector is asked anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from phantom.train.layout import CELLS, COLOURS, ROLES, roles_of
from phantom.world import FAMILY, SIZES, THINGS, Scene, Thing, phrase
from stable_diffusion_tf.tokenizer import Tokenizer

LENGTH = (
    24  # tokens, of 77: a causal encoder hears nothing of what follows, and no caption is longer
)
UNASKED = -1
SIDE_WORDS = {"left", "right", "of", "above", "over", "below", "under"}
SIZE_NAMES = tuple(SIZES)
ANSWERS = {"names": len(THINGS), "sizes": len(SIZES), "orders": 2, "colours": len(COLOURS)}

Words = Sequence[tuple[str, list[int]]]  # of a caption: each word and where its tokens stand


class WordReader(keras.layers.Layer):
    """Reads every vector of a context (b, 24, width) by itself, linearly, as attention's keys and
    values do.

    Gives logits: "names" (b, 24, things), "sizes" (b, 24, 3), "orders" (b, 24, 2), "colours"
    (b, 24, 10), "places" (b, 24, cells, 3): background, what was named first or second.
    """

    def build(self, shape):
        counts = ANSWERS | {"places": CELLS**2 * ROLES}
        self.heads = {
            name: keras.layers.Dense(count, dtype="float32", name=name)
            for name, count in counts.items()
        }
        for head in self.heads.values():
            head.build(shape)

    def call(self, context):
        told = {name: head(context) for name, head in self.heads.items()}
        places = keras.ops.reshape(told["places"], (-1, LENGTH, CELLS**2, ROLES))
        return told | {"places": places}


@dataclass(frozen=True)
class Answers:
    """The right answers to captions. Token by token, (n, 24) int32, UNASKED where nothing is
    asked: names, sizes, orders, colours; (n, 24) bool: where `places` is asked; and what share of
    each cell each role covers, (n, cells, 3) float32."""

    names: np.ndarray
    sizes: np.ndarray
    orders: np.ndarray
    colours: np.ndarray
    placed: np.ndarray
    places: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Of some captions, as the losses want them; places are all zero where not asked."""
        one = {name: getattr(self, name)[rows] for name in ANSWERS}
        asked = self.placed[rows][..., None, None]
        return one | {"places": asked * self.places[rows][:, None]}


def answer(drawn: Sequence[Scene]) -> Answers:
    """The right answers to the captions of scenes."""
    tokenizer = Tokenizer()
    one = {name: np.full((len(drawn), LENGTH), UNASKED, np.int32) for name in ANSWERS}
    placed = np.zeros((len(drawn), LENGTH), bool)
    places = np.zeros((len(drawn), CELLS**2, ROLES), np.float32)
    for i, scene in enumerate(drawn):
        words = tokenizer.words(scene.caption)
        ordered = in_order(scene, words)
        places[i] = roles_of(scene, [thing for thing, _, _ in ordered])
        for order, (thing, position, by_name) in enumerate(ordered):
            one["sizes"][i, position] = SIZE_NAMES.index(thing.size)
            one["orders"][i, position] = order
            if by_name:
                one["names"][i, position] = THINGS.index(thing.name)
        sides = [at[-1] for word, at in words if word in SIDE_WORDS]
        if sides:
            placed[i, [*sides, ordered[1][1]]] = True
        for word, at in words:
            if word == scene.background:
                one["colours"][i, at[-1]] = COLOURS.index(word)
    return Answers(placed=placed, places=places, **one)


def in_order(scene: Scene, words: Words) -> list[tuple[Thing, int, bool]]:
    """The things in the order in which the caption names them, where the last token of each one's
    word stands, and whether it is called by its own name, not its family's."""
    found = []
    for thing in scene.things:
        at, by_name = find(words, phrase(thing)), True
        if at is None:
            at, by_name = find(words, phrase(thing, FAMILY[thing.name])), False
        found.append((thing, at, by_name))
    return sorted(found, key=lambda one: one[1])


def find(words: Words, said: str) -> int | None:
    """Where the last token of a phrase stands; 'a tree' is not in 'a palm tree'."""
    wanted = said.split()
    for i in range(len(words) - len(wanted) + 1):
        if [word for word, _ in words[i : i + len(wanted)]] == wanted:
            return words[i + len(wanted) - 1][1][-1]
    return None
