"""Prompts of the phantom's world: what they ask for, and pictures that show it or do not."""

import numpy as np
import pytest

from phantom.prompts import asked, shown
from phantom.world import BACKGROUNDS, Scene, Thing, render

RABBIT, CAT = Thing("rabbit", "", 4, 4), Thing("cat", "small", 36, 36)
SCENES = [
    Scene("purple", BACKGROUNDS["purple"], things, "") for things in ([RABBIT], [RABBIT, CAT])
]


@pytest.mark.parametrize(
    ("prompt", "things", "ground"),
    [
        ("a rabbit left of a small cat on a purple background", {"rabbit", "cat"}, {"purple"}),
        ("a rabbit on purple", {"rabbit"}, {"purple"}),
        ("a rabbit, purple background", {"rabbit"}, {"purple"}),
        ("a purple rabbit", {"rabbit"}, set()),
        ("rabbits and a painting", set(), set()),
    ],
)
def test_a_prompt_asks_for_things_and_a_background(prompt, things, ground):
    assert asked(prompt) == (things, ground)


@pytest.mark.parametrize(
    ("prompt", "right"),
    [
        ("a rabbit on a purple background", [True, False]),
        ("a rabbit and a cat", [False, True]),
        ("a rabbit on a blue background", [False, False]),
    ],
)
def test_a_picture_shows_all_that_was_asked_for(prompt, right):
    images = np.stack([render(scene) for scene in SCENES])
    np.testing.assert_array_equal(shown(images, prompt), [right[0], right[1]])


def test_what_cannot_be_judged_is_not_judged():
    images = np.stack([render(scene) for scene in SCENES])
    assert shown(images, "a painting") is None
    assert shown(images[:, ::2, ::2], "a rabbit") is None
