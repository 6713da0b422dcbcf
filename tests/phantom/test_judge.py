"""The judge: right on real scenes, and not to be taken in."""

from dataclasses import replace

import numpy as np
import pytest

from phantom.judge import FLOOR, Findings, Match, Verdict, judge, verdict
from phantom.world import (
    BACKGROUNDS,
    OF_REGISTERS,
    SIDE,
    THINGS,
    Thing,
    for_evaluation,
    render,
    scenes,
)


@pytest.fixture(scope="module")
def alone():
    return scenes(31, 100, for_evaluation, 1)


@pytest.fixture(scope="module")
def pairs():
    return scenes(32, 100, for_evaluation, 2)


def flat(scene):
    picture = np.empty((SIDE, SIDE, 3), np.uint8)
    picture[:] = scene.colour
    return picture


def test_real_scenes_are_judged_right(alone, pairs):
    right = [
        verdict(scene, judge(render(scene))) == Verdict(True, len(scene.things) == 2, True)
        for scene in alone + pairs
    ]
    assert np.mean(right) >= 0.98


def test_fewer_templates_find_fewer_things():
    some = [scene for n in (1, 2) for scene in scenes(33, 50, for_evaluation, n)]
    all_of_them, few = (
        np.mean([verdict(s, judge(render(s), things=known)).shown for s in some])
        for known in (THINGS, OF_REGISTERS)
    )
    assert all_of_them >= 0.98 and few < 0.5


def test_it_says_what_is_where(pairs):
    found = judge(render(pairs[0]))
    assert {m.thing for m in found.matches} == set(pairs[0].things)
    assert found.background == pairs[0].background and found.colour == pairs[0].colour
    assert all(0.98 < m.score <= 1.0001 for m in found.matches)


def test_blank_pictures_and_noise_show_nothing(alone):
    rng = np.random.default_rng(0)
    for scene in alone[:10]:
        assert judge(flat(scene)).matches == ()
        assert judge(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).matches == ()
        loud = np.clip(flat(scene) + rng.normal(0, 40, (SIDE, SIDE, 3)), 0, 255)
        assert judge(loud.astype(np.uint8)).matches == ()


def test_a_coloured_blob_is_not_the_thing_that_was_asked_for(alone):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    shown = []
    for scene in alone:
        picture, thing = flat(scene), scene.things[0]
        inside = np.hypot(y - thing.centre[0], x - thing.centre[1]) < 0.4 * thing.side
        picture[inside] = rng.integers(0, 256, 3)
        shown.append(verdict(scene, judge(picture)).shown)
    assert np.mean(shown) <= 0.05


def test_another_thing_in_its_place_is_wrong(alone, pairs):
    for scene in alone[:30] + pairs[:30]:
        *rest, last = scene.things
        other = THINGS[(THINGS.index(last.name) + 1) % len(THINGS)]
        if other in [thing.name for thing in rest]:
            continue
        seen = replace(scene, things=(*rest, replace(last, name=other)))
        assert not verdict(scene, judge(render(seen))).shown


def test_one_of_two_is_not_both(pairs):
    for scene in pairs[:20]:
        seen = judge(render(replace(scene, things=scene.things[:1])))
        assert verdict(scene, seen) == Verdict(False, False, True)


def test_mirrored_places_are_the_wrong_side(pairs):
    def mirrored(thing):
        return replace(
            thing, row=SIDE - thing.row - thing.side, column=SIDE - thing.column - thing.side
        )

    for scene in pairs[:30]:
        swapped = replace(scene, things=tuple(mirrored(t) for t in scene.things))
        assert verdict(scene, judge(render(swapped))) == Verdict(True, False, True)
        assert not verdict(scene, judge(render(scene)[::-1, ::-1])).side


def test_another_background_is_wrong(alone):
    for scene in alone[:10]:
        others = [name for name in BACKGROUNDS if name != scene.background]
        found = judge(render(scene))
        assert not any(verdict(replace(scene, background=b), found).background for b in others)


def test_a_thing_that_was_not_asked_for_is_wrong(alone, pairs):
    a, b = pairs[0].things
    found = Findings(pairs[0].background, pairs[0].colour, (Match(a, 0.95), Match(b, 0.9)))
    lone = replace(pairs[0], things=(b,))
    assert verdict(pairs[0], found) == Verdict(True, True, True)
    assert verdict(replace(pairs[0], things=(b, a)), found) == Verdict(True, True, True)
    assert not verdict(lone, found).shown and not verdict(replace(lone, things=(a,)), found).shown
    twice = replace(found, matches=(*found.matches, Match(a, 0.85)))
    assert not verdict(pairs[0], twice).shown
    for scene in pairs[:20]:
        seen = judge(render(scene))
        assert not verdict(replace(scene, things=scene.things[:1]), seen).shown


def test_matches_do_not_overlap_and_reach_the_floor(alone):
    for scene in alone[:10]:
        matches = judge(render(scene), most=4).matches
        assert all(m.score >= FLOOR for m in matches)
        assert [m.thing for m in matches][:1] == list(scene.things)
        assert all(not overlap(m.thing, scene.things[0]) for m in matches[1:])


def overlap(a: Thing, b: Thing) -> bool:
    gap = max(abs(a.centre[0] - b.centre[0]), abs(a.centre[1] - b.centre[1]))
    return gap < 0.5 * max(a.side, b.side)


def test_looking_changes_nothing(pairs):
    picture = render(pairs[0])
    picture.flags.writeable = False
    before = picture.copy()
    assert judge(picture) == judge(picture)
    np.testing.assert_array_equal(picture, before)
