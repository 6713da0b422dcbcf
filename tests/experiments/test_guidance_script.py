"""The script that sweeps the guidance: its numbers on planted cases, and the smallest run."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_guidance as guidance
from stable_diffusion_tf import StableDiffusion
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray.film import Film

pytestmark = pytest.mark.usefixtures("loaded")

SMALLEST = ["a cat", "--steps", 2, "--pictures", 2, "--scales", 1, 4]


def test_a_pixel_is_saturated_if_one_of_its_values_is_at_an_end():
    images = np.full((2, 2, 10, 10, 3), 128, np.uint8)
    images[0, 1, 0, :5, 2] = 255
    images[1, 0, :, :3] = 0
    images[1, 1] = 254
    np.testing.assert_allclose(guidance.saturation(images), [[0, 5], [30, 0]])


@pytest.mark.parametrize(
    ("more", "start"),
    [
        ([0, 0.1, 5, 9], 2),
        ([0, 5, 0.1, 9], 3),
        ([0, 5, 6, 9], 1),
        ([0, 5, 6, 0.1], None),
        ([0, -5, -6, -9], None),
    ],
)
def test_saturation_starts_where_it_is_sure_from_there_on(more, start):
    shaken = np.array([[0, 0, 0, 0], [3, -3, 1, -1], [1, 0, 1, 0], [0, 1, 0, 1]])
    ends = np.array([1.0, 2.0, 9.0, 4.0]) + np.array(more)[:, None] + shaken[[0, 1, 1, 1]]
    assert guidance.find_onset(ends) == start


@pytest.mark.arithmetic
def test_it_saves_sheet_pictures_and_film(tmp_path, monkeypatch, capfd):
    call(guidance.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_guidance")
    assert spread(folder / "guidance.png") > 10
    pictures = load_file(folder / "pictures.safetensors")["pictures"]
    assert pictures.shape == (2, 2, 64, 64, 3) and not np.array_equal(*pictures)
    film = Film.open(folder)
    assert film.finished and film.facts["guidance"] == 7.5
    sizes = guidance.measure_noises(film)
    apart = film[0]["eps_cond"] - film[0]["eps_uncond"]
    assert sizes["ε_cond − ε_uncond"][0] == pytest.approx(np.sqrt(np.mean(apart**2)))
    guided = film[1]["eps_uncond"] + 7.5 * (film[1]["eps_cond"] - film[1]["eps_uncond"])
    assert sizes["ε at guidance 7.5"][1] == pytest.approx(np.sqrt(np.mean(guided**2)), rel=1e-5)
    said, complained = capfd.readouterr()
    assert complained == "" and "the same words on both sides, at every guidance: " in said
    ends = guidance.saturation(pictures).mean(1)
    assert f"guidance 4, {ends[1]:.2f} % saturated, " in said and "of 2 judged right" in said


def test_the_control_fails_where_the_halves_are_not_treated_alike(tmp_path, monkeypatch, capfd):
    predict = StableDiffusion.predict_noise

    def lopsided(*given, **at):
        eps = predict(*given, **at)
        eps[len(eps) // 2 :] *= 1.001
        return eps

    monkeypatch.setattr(StableDiffusion, "predict_noise", lopsided)
    with pytest.raises(SystemExit, match="control failed"):
        call(guidance.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_pictures_of_no_phantom_are_not_judged():
    images = np.zeros((2, 3, 32, 32, 3), np.uint8)
    assert guidance.judge_all(images, "a cat") is None
    ends = np.array([[1.0, 2.0], [3.0, 4.0]])
    sizes = {"ε_cond": np.ones(3), "ε_cond − ε_uncond": np.array([0.1, 0.4, 0.2])}
    figure = guidance.draw_sheet(images, sizes, [1, 4], ends, None, "a title")
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "guidance 1\n1.50 % saturated",
        "guidance 4\n3.50 % saturated",
        "step, from noise to picture",
        "guidance",
    ]
    assert guidance.tell_words(sizes) == "the words move the noise most in step 2 of 3, by 40 %"


def test_a_latent_consistency_model_has_no_second_half(tmp_path, monkeypatch, capfd):
    with np.load(GOLDEN) as found:
        oracles.write(tmp_path, oracles.LCM, json.loads(str(found["lcm/names"])))
    words = ["--weights", tmp_path, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit):
        call(guidance.main, *words, monkeypatch=monkeypatch)
    assert "has no ε_uncond; name other weights" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--scales", "4"], "two or more that rise"),
        (["--scales", "4", "1"], "two or more that rise"),
        (["--scales", "0", "1"], "scale of 0 is not above 0"),
        (["--pictures", "1"], "1 pictures have no standard error"),
        (["--steps", "0"], "steps must be from 1 to 1000"),
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(guidance.main, words, told, tmp_path / "out", monkeypatch, capfd)
