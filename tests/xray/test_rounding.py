"""The rounding floor: what it forgives, and that it does not forgive a wrong row or weight."""

import keras
import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion
from xray import rounding
from xray.film import Film
from xray.film.replay import unwatched
from xray.methods.drawing import draw
from xray.probe import Probe
from xray.rounding import Held

pytestmark = pytest.mark.arithmetic

RUN = {"steps": 3, "guidance": 4.0, "eta": 0.5, "seed": 1}


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    return StableDiffusion.load("phantom")


@pytest.fixture(scope="module")
def film(sd, tmp_path_factory) -> Film:
    out = tmp_path_factory.mktemp("films") / "cat"
    probes = [Probe("unet.*.attn2.probs"), Probe("unet.*.hidden")]
    return Film.shoot(sd, "a cat on red", **RUN, probes=probes, out=out)


@pytest.mark.parametrize(
    ("same", "reaches"),
    [
        ([[1, 2], [1, 2.5], [0.75, 2]], 0.5),
        ([[1, 2], [1, 2]], 2 * rounding.ULP),
        ([[-8, 2]], 8 * rounding.ULP),
        ([[0, 0], [0, 0]], 0),
        ([[0, np.nan], [0, np.nan]], 0),
        ([[0, 1], [0, np.nan]], np.inf),
    ],
)
def test_the_spread_is_the_largest_difference_from_the_first(same, reaches):
    assert rounding.spread(same) == reaches


def test_a_difference_is_told_with_the_floor():
    assert str(Held(0.0, 5e-6)) == "the same bits" and Held(0.0, 0.0).passed
    told = "differs by 2e-06; rounding on this machine reaches 5e-06"
    assert str(Held(2e-6, 5e-6)) == told and Held(2e-6, 5e-6).passed
    assert Held(4e-5, 5e-6).passed and not Held(6e-5, 5e-6).passed
    assert not Held(np.inf, 5e-6).passed and not Held(np.nan, 5e-6).passed


def test_a_nudge_is_one_last_bit():
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 4), dtype=np.float32)
    moved = rounding.nudged(x)
    assert moved.dtype == np.float32 and set(np.unique(np.sign(moved - x))) == {-1, 0, 1}
    assert np.all(np.abs(moved - x) <= np.spacing(np.abs(x)))


def test_pictures_in_other_rows_hear_their_own_fresh_noise():
    own = np.random.default_rng([3, 1])
    other = rounding.FreshNoise(3, 3, [2, 0, 0, 1])
    for _ in range(2):
        drawn = own.standard_normal((3, 2, 2, 4), dtype=np.float32)
        again = other.standard_normal((4, 2, 2, 4), np.float32)
        np.testing.assert_array_equal(again, drawn[[2, 0, 0, 1]])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_runs_redrawn_are_the_same_runs(sd, eta):
    """Each picture has its own words, on both sides, its own start and its own fresh noise."""
    contexts, noise = (
        sd.encode_text(["a cat on red", "a dog on blue", "a tree"]),
        sd.draw_noise(0, 3),
    )
    run = {"uncond": contexts[[2, 0, 1]], "steps": 3, "guidance": 4.0, "eta": eta, "seed": 5}
    ends = draw(sd, contexts, noise, run)
    again = rounding.redrawn(sd, contexts, noise, run)
    assert 0 < rounding.spread([ends, again]) < 2e-4
    assert np.abs(again - ends[::-1]).max() > 0.1


def test_one_run_in_other_rows_and_batches_differs_by_rounding(sd, film):
    run = RUN | {"uncond": film.text["uncond"]}
    runs = rounding.twin_runs(sd, film.text["context"], film[0]["x"], run)
    assert [len(steps) for steps in runs] == [3, 3] and runs[1][0].x.shape[0] == 3
    for frame, *twins in zip(film, *runs, strict=True):
        for twin in twins:
            for row in twin.x_prev:
                np.testing.assert_allclose(row, frame["x_prev"][0], atol=1e-4)
    assert rounding.ULP <= rounding.floor_of_runs(runs, ("eps", "x_prev")) < 1e-4


def test_looking_changes_nothing_but_rounding(sd, film):
    held = unwatched(sd, film)
    assert held.passed and 0 < held.reaches < 1e-4


def test_a_wrong_weight_is_not_forgiven(film):
    other = StableDiffusion.load("phantom")
    kernel = other.network("unet").conv_out.kernel
    changed = keras.ops.convert_to_numpy(kernel).copy()
    changed.flat[0] *= 1.5
    kernel.assign(changed)
    held = unwatched(other, film)
    assert not held.passed and held.difference > 100 * held.reaches


def test_a_wrong_row_is_not_forgiven(sd, film):
    """One noise, and words that differ in one of them: the rows are as near as rows get."""
    contexts, noise = sd.encode_text(["a cat on red", "a dog on red"]), sd.draw_noise(0, 1)
    given = contexts, np.repeat(noise, 2, 0), {"uncond": sd.encode_text(""), **RUN}
    ends, again = (d(sd, *given) for d in (draw, rounding.redrawn))
    assert rounding.hold(again, ends, [ends, again]).passed
    held = rounding.hold(ends[::-1], ends, [ends, again])
    assert not held.passed and held.difference > 100 * held.reaches
