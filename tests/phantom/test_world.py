"""The phantom's world: captions, masks, what is held out."""

import itertools

import numpy as np
import pytest

from phantom import world
from phantom.world import (
    BACKGROUNDS,
    CONCEPTS,
    FAMILY,
    GRID,
    OF_REGISTERS,
    SIDE,
    SIDES,
    SIZES,
    THINGS,
)

SAID = {said: side for side, wordings in SIDES.items() for said in wordings}


@pytest.fixture(scope="module")
def some():
    return world.scenes(1, 300)


def test_the_things_learned_are_on_the_sheet():
    assert len(THINGS) == len(set(THINGS)) == 74 and set(OF_REGISTERS) < set(THINGS)
    assert set(THINGS) <= {c["name"] for c in CONCEPTS} and len(OF_REGISTERS) == 40
    assert not set(THINGS) & set(BACKGROUNDS)  # a word means one thing


def test_scenes_show_all_that_was_learned():
    some = world.scenes(1, 600)
    assert {t.name for scene in some for t in scene.things} == set(THINGS)


@pytest.mark.parametrize("side", SIZES.values())
def test_every_concept_has_ink(side):
    for concept in CONCEPTS:
        picture = world.sprite(concept["name"], side)
        assert picture.shape == (side, side, 4) and picture.dtype == np.float32
        assert picture.min() >= 0 and picture.max() <= 1 + 1e-6
        assert np.mean(picture[..., 3] > 0.5) > 0.1, concept["name"]
        assert not picture.flags.writeable  # it is kept for the next who asks


def test_captions_say_what_the_scene_shows(some):
    kinds = set()
    for scene in some:
        said = scene.caption
        colours = set(said.replace(",", "").split()) & set(BACKGROUNDS)
        assert colours <= {scene.background}
        kinds.add(("background", bool(colours)))
        if len(scene.things) == 1:
            (thing,) = scene.things
            named = said.startswith(world.phrase(thing))
            assert named or said.startswith(world.phrase(thing, FAMILY[thing.name]))
            kinds.add(("named", named))
            continue
        a, b = sorted(scene.things, key=lambda t: said.index(f"{t.size} {t.name}".strip()))
        between = said.removeprefix(world.phrase(a)).partition(world.phrase(b))[0].strip()
        assert between == "and" or SAID[between] == world.side_of(a, b), said
        kinds.add(between)
    assert kinds >= {"and", *SAID} | set(itertools.product(("background", "named"), (True, False)))


def test_sides_are_seen_from_the_other_thing():
    cat, dog = world.Thing("cat", "", 0, 0), world.Thing("dog", "", 8, 32)
    assert world.side_of(cat, dog) == "left of" and world.side_of(dog, cat) == "right of"
    low = world.Thing("dog", "", 32, 8)
    assert world.side_of(cat, low) == "above" and world.side_of(low, cat) == "below"


def test_things_stand_inside_and_on_the_grid(some):
    for scene in some:
        for thing in scene.things:
            assert thing.row % GRID == thing.column % GRID == 0
            assert min(thing.row, thing.column) >= 0
            assert max(thing.row, thing.column) + thing.side <= SIDE


def test_masks_share_nothing_and_cover_everything(some):
    for scene in some:
        masks = world.masks(scene)
        assert set(masks) == {t.name for t in scene.things} | {scene.background}
        np.testing.assert_array_equal(sum(m.astype(int) for m in masks.values()), 1)
        assert all(m.any() for m in masks.values())


def test_masks_are_where_the_picture_has_the_thing(some):
    for scene in some:
        picture, masks = world.render(scene).astype(int), world.masks(scene)
        assert picture.shape == (SIDE, SIDE, 3)
        solid = np.zeros((SIDE, SIDE), bool)
        for thing in scene.things:
            ink = world.sprite(thing.name, thing.side)
            full = ink[..., 3] == 1
            seen = picture[thing.window][full]
            assert np.abs(seen - 255 * ink[full][:, :3]).max() <= 1
            assert masks[thing.name][thing.window][full].all()
            solid[thing.window] |= ink[..., 3] > 0
        assert (picture[~solid] == scene.colour).all()
        assert masks[scene.background][~solid].all()


def test_training_never_meets_what_is_held_out(some):
    for scene in some:
        names = [t.name for t in scene.things]
        pairs = [(n, scene.background) for n in names] + [tuple(names)] * (len(names) == 2)
        assert not any(world.held_out(*pair) for pair in pairs)


@pytest.mark.parametrize("count", [1, 2])
def test_evaluation_always_meets_what_is_held_out(count):
    for scene in world.scenes(1, 50, world.for_evaluation, count):
        names = [t.name for t in scene.things]
        assert len(names) == count
        assert world.held_out(*(names if count == 2 else [*names, scene.background]))


def test_one_pair_in_ten_is_held_out_in_either_order():
    pairs = list(itertools.combinations(THINGS, 2))
    assert 0.07 < np.mean([world.held_out(*pair) for pair in pairs]) < 0.13
    assert all(world.held_out(a, b) == world.held_out(b, a) for a, b in pairs)


def test_a_seed_is_a_set_of_scenes(some):
    assert world.scenes(1, 20) == some[:20]
    assert world.scenes(2, 20) != some[:20]
    np.testing.assert_array_equal(world.render(some[0]), world.render(some[0]))
