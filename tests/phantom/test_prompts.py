"""Prompts of the phantom's world: what they ask for, and pictures that show it or do not."""

import numpy as np
import pytest

from phantom.prompts import GRAMMAR, asked, counts_of_each, examples, marks, of_its_world, shown
from phantom.world import BACKGROUNDS, FAMILY, THINGS, Scene, Thing, render, scenes

RABBIT, CAT = Thing("rabbit", "", 4, 4), Thing("cat", "small", 8, 40)


def picture(*things: Thing) -> np.ndarray:
    return render(Scene("purple", BACKGROUNDS["purple"], things, ""))[None]


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        (
            "a rabbit left of a small cat on a purple background",
            ({"rabbit", "cat"}, "purple", ("rabbit", "left of", "cat")),
        ),
        ("A rabbit over a cat", ({"rabbit", "cat"}, None, ("rabbit", "above", "cat"))),
        (
            "a cat to the right of a rabbit",
            ({"rabbit", "cat"}, None, ("cat", "right of", "rabbit")),
        ),
        ("a rabbit and a cat on red", ({"rabbit", "cat"}, "red", None)),
        ("a rabbit, purple background", ({"rabbit"}, "purple", None)),
        ("a purple rabbit", ({"rabbit"}, None, None)),
        ("rabbits and a painting", (set(), None, None)),
    ],
)
def test_a_prompt_asks_for_things_a_background_and_a_side(prompt, wanted):
    assert asked(prompt) == wanted


@pytest.mark.parametrize(
    ("prompt", "right"),
    [
        ("a rabbit left of a cat on a purple background", (True, True, True)),
        ("a rabbit right of a cat on a purple background", (True, True, False)),
        ("a cat right of a rabbit on blue", (True, False, True)),
        ("a rabbit and a cat", (True, None, None)),
        ("a rabbit on a purple background", (False, True, None)),
        ("a dog above a cat", (False, None, False)),
    ],
)
def test_a_picture_gets_three_marks(prompt, right):
    got = marks(picture(RABBIT, CAT), prompt)
    assert [None if mark is None else bool(mark[0]) for mark in got] == [*right]
    assert shown(picture(RABBIT, CAT), prompt).tolist() == [False not in right]


def test_pictures_with_a_prompt_each_are_counted_where_a_mark_is_asked_for():
    images = np.concatenate([picture(RABBIT, CAT), picture(RABBIT), picture(CAT)])
    found = counts_of_each(images, ["a rabbit left of a cat", "a rabbit on purple", "a dog"])
    assert {name: one.short for name, one in found.items()} == {
        "things": "2 of 3",
        "background": "1 of 1",
        "side": "1 of 1",
    }
    assert counts_of_each(images, ["a rabbit", "a rabbit", "a dream"]) == {}


def test_examples_say_all_of_their_scenes_of_one_thing_and_of_two_by_turns():
    wanted = [asked(prompt) for prompt in examples(0, 32)]
    assert [len(one.things) for one in wanted] == [1, 2] * 16
    assert all(one.background and (one.side or len(one.things) == 1) for one in wanted)
    assert len({*wanted}) > 30 and examples(1, 32) != examples(0, 32)


def test_a_doubled_thing_is_not_right():
    twin = Thing("rabbit", "small", 36, 36)
    assert shown(picture(RABBIT), "a rabbit") and not shown(picture(RABBIT, twin), "a rabbit")
    assert not shown(picture(RABBIT, CAT, twin), "a rabbit and a cat")


def test_true_scenes_are_right():
    drawn = scenes(5, 40)
    named = [scene for scene in drawn if asked(scene.caption).things]
    assert len(named) > 30
    assert all(shown(render(scene)[None], scene.caption)[0] for scene in named)


def test_what_cannot_be_judged_is_not_judged():
    assert marks(picture(RABBIT), "a painting") is None
    assert shown(picture(RABBIT)[:, ::2, ::2], "a rabbit") is None


def test_every_caption_is_of_its_world():
    assert all(of_its_world(scene.caption) for scene in scenes(0, 500))


@pytest.mark.parametrize(
    "prompt",
    [
        "a red cat on a blue background",
        "a cat and a dog and a pizza",
        "cat",
        "",
        "a cat on a horse",
    ],
)
def test_known_words_make_no_known_sentence(prompt):
    assert not of_its_world(prompt)


def test_the_grammar_lists_all_words():
    words = [*THINGS, *BACKGROUNDS, "small", "big", "left of", "above", FAMILY["cat"]]
    assert all(word in GRAMMAR for word in words)
