"""What people hand in for a number, and what they are told."""

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion, UsageError, pipeline
from stable_diffusion_tf.arguments import number, whole
from stable_diffusion_tf.machine import Memory
from xray.film import Film


@pytest.fixture(scope="module")
def sd():
    return StableDiffusion.load("phantom")


@pytest.mark.parametrize("value", [3, np.int64(3), np.array(3), True + 2])
def test_any_whole_number_is_taken(value):
    assert whole("steps", value, 25) == 3


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2)])
def test_any_number_is_taken(value):
    assert number("eta", value, 0, 3, 1) == 2 and number("eta", value, 2, 2, 2) == 2


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"steps": 2.0}, r"steps=2\.0 is no whole number; try steps=25"),
        ({"steps": "3"}, "steps='3' is no whole number; try steps=25"),
        ({"seed": None}, "seed=None is no whole number; try seed=0"),
        ({"seed": 1.5}, "seed=1.5 is no whole number"),
        ({"guidance": None}, "a guidance of None is no number .*; try guidance=7.5"),
        ({"guidance": "7.5"}, "a guidance of '7.5' is no number"),
        ({"guidance": 1e300}, r"a guidance of 1e\+300 is no number from -1e\+06 to 1e\+06"),
        ({"guidance": 1e38}, "a guidance of 1e"),
        ({"guidance": 10**400}, "a guidance of 1000000"),
        ({"guidance": float("nan")}, "a guidance of nan is no number"),
        ({"eta": None}, "an eta of None is no number from 0 to 1"),
        ({"height": 64.0}, r"height=64\.0 is no whole number; try height=64"),
        ({"width": "64"}, "width='64' is no whole number"),
    ],
    ids=repr,
)
def test_a_wrong_type_is_told_in_one_line(asked, told, sd):
    with pytest.raises(UsageError, match=told) as refused:
        sd.generate("a cat", **{"steps": 1, **asked})
    assert str(refused.value).count("\n") == 0 and len(str(refused.value)) < 200


@pytest.mark.parametrize("folder", ["a\0b", None, 7])
def test_what_is_no_path_is_told(folder, sd):
    with pytest.raises(UsageError, match=r"folder=.* is no path; try folder='outputs'"):
        sd.save(folder)
    with pytest.raises(UsageError, match=r"out=.* is no path"):
        Film.shoot(sd, "a cat", steps=1, out=folder)


def test_the_largest_guidance_that_is_taken_stays_finite(sd):
    text, nothing = np.split(sd.encode_text(["a cat", ""]), 2)
    last = [*sd.denoise(text, nothing, 3, guidance=pipeline.MOST_GUIDANCE)][-1]
    assert np.isfinite(last.x_prev).all() and np.isfinite(last.eps).all()


def test_memory_is_asked_for_before_a_huge_size(sd, monkeypatch):
    with pytest.raises(UsageError, match=r"GB of memory at the least.*; try \d+×\d+ or less"):
        sd.draw_noise(0, 1, 16 * 10**9, 64)
    monkeypatch.setattr(pipeline, "memory", lambda: Memory(10**9, 10**8))
    with pytest.raises(UsageError, match=r"and 0\.1 GB are free; try (\d+)×\1 or less") as refused:
        sd.generate("a cat", height=16000, width=16000)
    side = int(str(refused.value).split("try ")[1].split("×")[0])
    assert sd.draw_noise(0, 1, side, side).shape == (1, side // 4, side // 4, 4)
    with pytest.raises(UsageError, match="or less"):
        sd.draw_noise(0, 1, side + sd.multiple, side + sd.multiple)


def test_the_smallest_picture_has_a_level_of_one_cell_and_warns_of_nothing(sd):
    assert sd.generate("a cat", steps=1, height=16, width=16).shape == (1, 16, 16, 3)
