"""Who stands where: the right answers, on scenes whose answers are plain to see."""

import keras
import numpy as np
import pytest
from keras import ops

from phantom.train.layout import CELLS, COLOURS, KINDS, Reader, look, named, spread
from phantom.world import OF_REGISTERS, Scene, Thing, masks, scenes

CAR, CARROT = Thing("car", "small", 0, 0), Thing("carrot", "", 32, 32)


def scene(caption: str, *things: Thing) -> Scene:
    return Scene("blue", (52, 101, 221), things, caption)


@pytest.mark.parametrize(
    "caption, first",
    [
        ("a small car left of a carrot", "car"),
        ("a carrot right of a small car, blue background", "carrot"),
        ("a carrot and a small car", "carrot"),
    ],
)
@pytest.mark.parametrize("things", [(CAR, CARROT), (CARROT, CAR)])
def test_what_is_named_first_stands_first(caption, first, things):
    names = [thing.name for thing in named(scene(caption, *things))]
    assert names[0] == first and sorted(names) == ["car", "carrot"]


def test_a_lone_thing_may_go_by_its_family():
    lone = scene("a vegetable on blue", CARROT)
    assert named(lone) == [CARROT]
    roles, names, colours = look([lone])
    assert colours.tolist() == [[COLOURS.index("blue")]]
    assert names.tolist() == [[1 + OF_REGISTERS.index("carrot"), 0]]
    assert roles[..., 2].max() == 0


def test_roles_lie_where_the_things_are():
    roles, names, _ = look([scene("a carrot right of a small car", CAR, CARROT)])
    assert names.tolist() == [[1 + OF_REGISTERS.index("carrot"), 1 + OF_REGISTERS.index("car")]]
    np.testing.assert_allclose(roles.sum(-1), 1, atol=1e-6)
    carrot, car = (roles[0, :, role].reshape(CELLS, CELLS) for role in (1, 2))
    assert carrot[2:, 2:].sum() > 1 and carrot.sum() == carrot[2:, 2:].sum()
    assert car[0, 0] > 0.3 and car.sum() == car[:2, :2].sum()


def test_kinds_are_the_share_of_each_mask():
    drawn = scenes(3, 20, things=OF_REGISTERS)
    kinds = spread(*look(drawn)[:2])
    assert kinds.shape == (20, CELLS**2, KINDS)
    for found, each in zip(kinds, drawn, strict=True):
        for name, mask in masks(each).items():
            kind = 1 + OF_REGISTERS.index(name) if name in OF_REGISTERS else 0
            assert found[:, kind].mean() == pytest.approx(mask.mean(), abs=1e-6)


def test_each_cell_asks_each_context_a_question_of_its_own():
    keras.utils.set_random_seed(0)
    reader, width = Reader(), 32
    context = np.random.default_rng(0).standard_normal((2, 77, width)).astype(np.float32)
    told = reader(context)
    shapes = {key: tuple(value.shape) for key, value in told.items()}
    assert shapes == {
        "kinds": (2, 16, KINDS),
        "roles": (2, 16, 3),
        "names": (2, 2, KINDS),
        "colours": (2, 1, len(COLOURS)),
    }
    swapped = context[::-1].copy()
    for key, value in reader(swapped).items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(value), ops.convert_to_numpy(told[key])[::-1], atol=1e-5
        )
    assert np.ptp(ops.convert_to_numpy(told["kinds"]), axis=1).max() > 0.1  # each cell its own
