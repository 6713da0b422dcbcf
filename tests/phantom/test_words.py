"""What single words are asked, and contexts with the padding of others."""

import ast
from dataclasses import replace

import keras
import numpy as np
import pytest

from phantom.train import loop, text, words
from phantom.train.answers import ANSWERS, LENGTH, SIZE_NAMES, UNASKED, answer
from phantom.train.contexts import Contexts, ends_of, with_padding_of
from phantom.world import BACKGROUNDS, THINGS, Scene, Thing, scenes
from stable_diffusion_tf.clip import build_clip
from stable_diffusion_tf.tokenizer import Tokenizer

TREE, PALM = Thing("tree", "", 16, 0), Thing("palm tree", "small", 16, 40)
BEE = Thing("bee", "big", 0, 0)


def asked(caption, *things, background="red"):
    """Word → question → answer, of all that is asked; and the answers."""
    right = answer([Scene(background, BACKGROUNDS[background], things, caption)])
    words = {at[-1]: word for word, at in Tokenizer().words(caption)}
    told = {}
    for name in ANSWERS:
        values = getattr(right, name)[0]
        for position in np.flatnonzero(values != UNASKED):
            told.setdefault(words[position], {})[name] = values[position]
    return told, [words[position] for position in np.flatnonzero(right.placed[0])], right


def test_each_word_is_asked_for_itself_alone():
    told, placed, right = asked(
        "a small palm tree to the right of a tree, red background", PALM, TREE
    )
    last = {
        "names": THINGS.index("tree"),
        "sizes": SIZE_NAMES.index(""),
        "orders": 1,
    }
    # both words end in "tree": the one dictionary entry that is left is that of the second
    assert told == {"tree": last, "red": {"colours": list(BACKGROUNDS).index("red")}}
    assert placed == ["right", "of", "tree"]
    assert right.names[0, 4] == THINGS.index("palm tree") and right.orders[0, 4] == 0
    first, second = right.places[0].reshape(4, 4, 3)[..., 1:].sum(0).T  # over the rows
    assert second[:2].sum() > 1.5 and not second[2:].any()  # the tree stands on the left
    assert first[2:].sum() > 0.7 and not first[:2].any()


def test_a_family_does_not_tell_the_name_and_a_lone_thing_no_place():
    told, placed, _ = asked("a big insect on red", BEE)
    assert told["insect"] == {"sizes": SIZE_NAMES.index("big"), "orders": 0}
    assert placed == []
    assert asked("a big bee", BEE)[0] == {"bee": told["insect"] | {"names": THINGS.index("bee")}}


def test_no_caption_is_longer_than_what_is_asked():
    drawn = scenes(4, 400)
    ids = Tokenizer()([scene.caption for scene in drawn])
    assert ends_of(ids, ids[0, -1]).max() < LENGTH
    right = answer(drawn)
    pairs = np.array([len(scene.things) == 2 for scene in drawn])
    assert ((right.orders != UNASKED).sum(1) == 1 + pairs).all()
    assert not right.placed[~pairs].any() and right.placed[pairs].any(1).mean() > 0.8


def test_answers_of_rows_are_those_of_their_scenes():
    drawn = scenes(4, 20)
    some, one = answer(drawn)[np.array([3, 7])], answer([drawn[7]])
    for name in ANSWERS:
        np.testing.assert_array_equal(some[name][1], getattr(one, name)[0])
    assert some["places"].shape == (2, LENGTH, 16, 3)
    told = some["places"][1].sum(-1)  # shares of a cell add up to one where asked
    np.testing.assert_allclose(told, np.broadcast_to(one.placed[0][:, None], told.shape), atol=1e-5)


def test_lessons_teach_and_are_written(tmp_path, monkeypatch, capsys):
    small = replace(text.TEXT, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    monkeypatch.setattr(text, "TEXT", small)
    monkeypatch.setattr(words, "TEXT", small)
    monkeypatch.setattr(loop, "STATES", tmp_path / "states")
    words.main(steps=400, scene_count=256, out=tmp_path)
    said = capsys.readouterr().out
    marks = ast.literal_eval(next(line for line in said.splitlines() if line.startswith("{")))
    assert marks["names"] > 30 and marks["colours"] > 50  # by luck 1 and 10
    assert marks["orders"] > 80  # by luck 50
    assert (tmp_path / "text_encoder" / "config.json").exists()


def test_padding_is_hushed_and_words_differ_as_before():
    keras.utils.set_random_seed(0)
    encoder = build_clip(replace(text.TEXT, hidden_size=32, intermediate_size=64))
    captions = Tokenizer()(["a cat", "a dog left of a car on a red background", ""])
    ends = ends_of(captions, captions[0, -1])
    before = encoder.predict(captions, verbose=0)
    words.hush(encoder, captions, ends)
    after = encoder.predict(captions, verbose=0)
    padding = np.arange(77) > ends[:, None]
    assert np.abs(before[padding].mean(0)).max() > 0.05
    np.testing.assert_allclose(after[padding].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(after[0, 1] - after[1, 2], before[0, 1] - before[1, 2], atol=1e-4)


# --- padding -----------------------------------------------------------------------------------


@pytest.fixture
def two():
    """Contexts whose every vector tells whose it is and how far from its end token."""
    ends = np.array([3, 70])
    place = np.arange(77)
    vectors = np.stack([100 * (1 + i) + (place - end) for i, end in enumerate(ends)])
    return Contexts(vectors[..., None].astype(np.float32), ends)


def test_words_stay_and_what_comes_after_them_is_the_others(two):
    mixed = with_padding_of(two, two[[1, 0]])[..., 0]
    np.testing.assert_array_equal(mixed[0, :3], [97, 98, 99])
    np.testing.assert_array_equal(mixed[0, 3:10], 200 + np.arange(7))
    assert (mixed[0, 10:] == 206).all()  # the other's padding is shorter: its last is repeated
    np.testing.assert_array_equal(mixed[1, :70], two.vectors[1, :70, 0])
    np.testing.assert_array_equal(mixed[1, 70:], 100 + np.arange(7))


def test_a_context_with_its_own_padding_is_itself(two):
    np.testing.assert_array_equal(with_padding_of(two, two), two.vectors)


def test_the_end_is_the_first_of_its_kind():
    ids = Tokenizer()(["", "a cat"])
    np.testing.assert_array_equal(ends_of(ids, ids[0, -1]), [1, 3])
