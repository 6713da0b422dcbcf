"""Who stands where, by a caption alone: what the text encoder is asked, and the right answers."""

import re
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from phantom.world import BACKGROUNDS, OF_REGISTERS, Scene, Thing, masks
from xray.measure import resize_by_area

CELLS = 4  # a side
KINDS = 1 + len(OF_REGISTERS)  # nothing, or one of the things
ROLES = 3  # the background, what is named first, what is named second
COLOURS = tuple(BACKGROUNDS)
HEADS, HEAD_SIZE = 8, 32


class Reader(keras.layers.Layer):
    """Asks a context (b, 77, width) learned questions, by attention, as the UNet's places do.

    Gives logits: "kinds" (b, cells, kinds), what stands in each cell; "roles" (b, cells, 3),
    whether that is the background, what was named first or what was named second; "names"
    (b, 2, kinds), what was named first and second; "colours" (b, 1, colours), on what background.
    """

    def build(self, shape):
        width = shape[-1]
        asked = (None, CELLS**2 + 3, width)
        start = keras.initializers.RandomNormal(stddev=0.3)
        self.questions = self.add_weight((1, *asked[1:]), start, name="questions")
        self.attention = keras.layers.MultiHeadAttention(HEADS, HEAD_SIZE, name="attention")
        self.attention.build(asked, (None, None, width))
        self.norm = keras.layers.LayerNormalization(name="norm")
        self.norm.build(asked)
        self.answers = keras.layers.Dense(
            KINDS + ROLES + len(COLOURS), dtype="float32", name="answers"
        )
        self.answers.build(asked)

    def call(self, context):
        asked = ops.repeat(self.questions, ops.shape(context)[0], axis=0)
        told = self.answers(self.norm(asked + self.attention(asked, context)))
        where, who, ground = ops.split(told, [CELLS**2, CELLS**2 + 2], axis=1)
        return {
            "kinds": where[..., :KINDS],  # (b, cells, kinds)
            "roles": where[..., KINDS : KINDS + ROLES],  # (b, cells, 3)
            "names": who[..., :KINDS],  # (b, 2, kinds)
            "colours": ground[..., KINDS + ROLES :],  # (b, 1, colours)
        }


def named(scene: Scene) -> list[Thing]:
    """The things of a scene in the order in which its caption names them."""
    if len(scene.things) == 1:
        return [*scene.things]
    return sorted(scene.things, key=lambda t: re.search(rf"\b{t.name}\b", scene.caption).start())


def look(some: Sequence[Scene]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The right answers: what share of each cell each role covers, (n, cells, 3) float32; the
    kinds of what is named first and second, (n, 2) int32, 0 where there is no second; the colour
    of the background, (n, 1) int32."""
    colours = np.array([[COLOURS.index(scene.background)] for scene in some], np.int32)
    roles = np.zeros((len(some), CELLS**2, ROLES), np.float32)
    names = np.zeros((len(some), 2), np.int32)
    for scene, share, name in zip(some, roles, names, strict=True):
        things = named(scene)
        share[:] = roles_of(scene, things)
        name[: len(things)] = [1 + OF_REGISTERS.index(thing.name) for thing in things]
    return roles, names, colours


def roles_of(scene: Scene, ordered: Sequence[Thing]) -> np.ndarray:
    """What share of each cell the background and the things, in this order, cover, (cells, 3)."""
    seen = masks(scene)
    covered = np.stack([seen[key] for key in (scene.background, *(t.name for t in ordered))])
    roles = np.zeros((CELLS**2, ROLES), np.float32)
    roles[:, : len(covered)] = resize_by_area(covered, CELLS, CELLS).reshape(len(covered), -1).T
    return roles


def spread(roles: np.ndarray, names: np.ndarray) -> np.ndarray:
    """What share of each cell each kind covers, (b, cells, kinds), from `look`'s answers."""
    kinds = np.zeros((*roles.shape[:2], KINDS), np.float32)
    kinds[..., 0] = roles[..., 0]
    for role in (1, 2):
        kinds[np.arange(len(names)), :, names[:, role - 1]] += roles[..., role]
    return kinds
