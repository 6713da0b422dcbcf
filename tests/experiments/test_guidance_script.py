"""The script that sweeps the guidance: its numbers on planted cases, and the smallest run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_guidance as guidance
from experiments.figures import guidance as figures
from stable_diffusion_tf import StableDiffusion
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray.measure import Estimate, saturation
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

SMALLEST = ["a cat", "--steps", 2, "--pictures", 2, "--scales", 1, 4]


def rows(*more: float, wide: float = 0.5) -> list[dict]:
    """A table whose scales 1, 2, 3 … saturate so many per cent more than the first."""
    return [
        {
            "guidance": f"{scale}",
            "saturated": Estimate(1 + x, x + 0.5, x + 1.5, 8, "%"),
            "more": Estimate(x, x - wide, x + wide, 8, "%"),
        }
        for scale, x in enumerate((0.0, *more), 1)
    ]


@pytest.mark.parametrize(
    ("more", "start"),
    [
        ((0.1, 5, 9), "from 3 on"),
        ((5, 0.1, 9), "from 4 on"),
        ((5, 6, 9), "from 2 on"),
        ((5, 6, 0.1), "up to 4 hardly"),
        ((-5, -6, -9), "up to 4 hardly"),
        ((0.1, 0.1, 1.2), "up to 4 hardly"),
    ],
)
def test_saturation_starts_where_it_is_sure_from_there_on(more, start):
    found = guidance.find(rows(*more))
    assert f"Guidance {start}" in found and len(found.split()) <= 25


@pytest.mark.arithmetic
def test_it_saves_sheet_pictures_and_film(tmp_path, monkeypatch, capfd):
    call(guidance.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_guidance")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["pictures"].shape == (2, 2, 64, 64, 3)
    assert not np.array_equal(*saved["pictures"])
    report, _ = read_report(folder / "report.json")
    share = 100 * saturation(saved["pictures"]).mean(1)
    assert report.table[1]["saturated"].value == pytest.approx(share[1])
    assert report.table[1]["as asked"].n == 2 and report.control.passed
    assert capfd.readouterr().err == ""


def test_the_sizes_are_those_of_the_steps():
    cond, uncond = np.full((1, 2, 2, 4), 3.0), np.full((1, 2, 2, 4), 1.0)
    step = SimpleNamespace(eps_uncond=uncond, eps_cond=cond, eps=uncond + 7.5 * (cond - uncond))
    assert {name: x.tolist() for name, x in guidance.sizes_of([step], 7.5).items()} == {
        "ε_uncond": [1],
        "ε_cond": [3],
        "ε_cond − ε_uncond": [2],
        "ε at guidance 7.5": [16],
    }


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
    images = np.zeros((3, 32, 32, 3), np.uint8)
    assert guidance.as_asked(images, "a cat") == {}
    figure = figures.guidance_sheet(images[:2], {"ε_cond": np.ones(3)}, [1, 2], rows(5), "a title")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["guidance 1", "guidance 2"]
    assert [axes.get_xlabel() for axes in figure.axes][:2] == ["1.0 % saturated", "6.0 % saturated"]


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
        (["--scales", "4"], "--scales takes 2 or more that rise"),
        (["--scales", "4", "1"], "--scales takes 2 or more that rise"),
        (["--scales", "0", "1"], "scale of 0 is not above 0"),
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(guidance.main, words, told, tmp_path / "out", monkeypatch, capfd)
