"""The script on directions in the UNet: its numbers on planted cases, the smallest run."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_h_space as h_space
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray.measure import Estimate
from xray.methods import steering
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

PLACE = "unet.up_blocks.1"
SMALLEST = ["--steps", 2, "--pictures", 2, "--scales", 0, 1, 2, "--place", PLACE]
RNG = np.random.default_rng(0)


# --- planted cases


def test_the_share_of_the_way_leaves_out_what_moved_aside():
    start, goal = RNG.normal(size=(2, 3, 4, 4, 2))
    way = goal - start
    aside = RNG.normal(size=way.shape)
    for a, b in zip(aside, way, strict=True):
        a -= b * (np.sum(a * b) / np.sum(b * b))
    x = start + np.array([0, 0.25, -2]).reshape(3, 1, 1, 1) * way + aside
    np.testing.assert_allclose(steering.share_of_way(x, start, goal), [0, 0.25, -2], atol=1e-12)


def test_a_shuffled_direction_has_the_same_numbers_in_all_steps_and_other_places():
    direction = RNG.normal(size=(3, 64)).astype(np.float32)
    rows = steering.with_shuffled(direction, 2)
    assert rows.shape == (3, 8, 64) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows[:, :4], np.repeat(direction[:, None], 4, axis=1))
    for i in range(4, 8):
        np.testing.assert_allclose(np.sort(np.abs(rows[:, i])), np.sort(np.abs(direction)))
        assert abs(np.corrcoef(rows[:, i].ravel(), direction.ravel())[0, 1]) < 0.4
        ratio = rows[0, i] / rows[1, i]  # one order for all steps
        np.testing.assert_allclose(np.sort(ratio), np.sort(direction[0] / direction[1]), rtol=1e-5)


def test_vectors_are_added_to_all_positions_in_the_prompts_half():
    shapes = {"one": (2, 3, 4), "other": (1, 1, 5)}
    vectors = {"one": np.arange(8.0).reshape(2, 4)}
    made = steering.over_positions(vectors, shapes, batch=2)
    assert made["one"].shape == (4, 2, 3, 4) and made["other"].shape == (4, 1, 1, 5)
    assert not made["one"][:2].any() and not made["other"].any()
    np.testing.assert_array_equal(made["one"][3, 1, 2], [4, 5, 6, 7])


def test_lines_are_fitted_to_each_picture():
    scales = (-1.0, 0.0, 1.0, 2.0)
    shares = np.array([[-0.5, 1, 0], [0, 0, 0], [0.5, 1, 0], [1, 4, 0]])
    slope, r2 = steering.fit_lines(scales, shares)
    assert slope == pytest.approx([0.5, 1.0, 0])
    assert r2 == pytest.approx([1, 5 / 9, 0])


def around(value: float, wide: float = 1.0) -> Estimate:
    return Estimate(value, value - wide, value + wide, 8, "%")


@pytest.mark.parametrize(
    ("own", "more", "straight", "told"),
    [
        (
            40,
            35,
            0.97,
            "40.0 % [39.0, 41.0] of the word's way, in a straight line; shuffled, 5.0 %.",
        ),
        (40, 35, 0.8, "not in a straight line"),
        (5, 0.5, 0.97, "no more than a shuffled one"),
    ],
)
def test_the_finding_is_told_by_the_numbers(own, more, straight, told):
    row = dict(zip(h_space.ROWS, map(around, (own, own, own - more, 0)), strict=True))
    found = h_space.find(row, around(more), around(straight, 0.01), PLACE)
    assert told in found and found.startswith("A direction at up_blocks.1 moves pictures ")
    assert len(found.split()) <= 25


# --- the script


@pytest.mark.arithmetic
def test_it_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(h_space.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_h_space")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["direction"].shape == (2, 48) and saved["plain"].shape == (4, 2, 16, 16, 4)
    assert saved["latents"].shape == (3, 4, 2, 16, 16, 4)
    np.testing.assert_allclose(saved["latents"][0], saved["plain"][[0, 1, 0, 1]], atol=1e-4)
    start, goal = saved["plain"][:2], saved["plain"][2:]
    shares = steering.share_of_way(saved["latents"][1, :2], start, goal)
    assert (shares > 0.05).all(), "the direction leads away from the word"
    report, _ = read_report(folder / "report.json")
    assert report.numbers["at scale 1"].value == pytest.approx(100 * shares[0].mean(), rel=1e-4)
    assert PLACE in report.numbers and report.control.passed and capfd.readouterr().err == ""


def test_the_control_fails_where_scale_0_is_not_the_plain_picture(tmp_path, monkeypatch, capfd):
    """One number of 8,192 is off by a thousandth; all else is a real run."""
    steer_all = steering.steer_all

    def off(*given):
        seen = steer_all(*given)
        seen.latents[0, 0, 0, 0, 0, 0] += 1e-3
        return seen

    monkeypatch.setattr(steering, "steer_all", off)
    with pytest.raises(SystemExit, match="control failed"):
        call(h_space.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    assert "the plain pictures: differs by 0.001; rounding on" in capfd.readouterr().out


def test_a_latent_consistency_model_is_refused(tmp_path, monkeypatch, capfd):
    with np.load(GOLDEN) as found:
        oracles.write(tmp_path, oracles.LCM, json.loads(str(found["lcm/names"])))
    words = ["--weights", tmp_path, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit):
        call(h_space.main, *words, monkeypatch=monkeypatch)
    assert "has no ε_uncond; name other weights" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a cat on blue", "--change", "red", "blue"], "has no word 'red'"),
        (["a cat on blue", "a car"], "'a car' has no word 'blue'"),
        (["--change", "blue", "blue"], "reads both words alike"),
        (["--scales", "1", "2", "3"], "0 and 1 among them"),
        (["--scales", "0", "1"], "--scales takes 3 or more that rise"),
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["--place", "unet.time_embedding"], "is no single map of features"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(h_space.main, words, told, tmp_path / "out", monkeypatch, capfd)
