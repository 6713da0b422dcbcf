"""The script on the number of steps: its numbers on planted cases, and the smallest run."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_fast_sampling as fast
from stable_diffusion_tf import StableDiffusion
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray.measure import Estimate, share_of
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

SMALLEST = ["a cat", "--counts", 1, 2, "--steps", 4, "--pictures", 2]
PLAIN, FRESH = fast.SAMPLERS


def rows(*away: tuple[float, float], judged: bool = True) -> list[dict]:
    """A table whose runs of 2, 5, 10 steps end so far off, from and to, in per cent."""
    right = {"as asked": share_of(np.ones(4, bool))} if judged else {}
    runs = [
        {"sampler": name, "steps": n, "away": Estimate(sum(ends) / 2, *ends, 8, "%")} | right
        for name in fast.SAMPLERS
        for n, ends in zip((2, 5, 10), away, strict=True)
    ]
    other = {"sampler": "another noise", "steps": 50, "away": Estimate(20, 19, 21, 8, "%")}
    return [*runs, {"sampler": PLAIN, "steps": 50} | right, other]


@pytest.mark.parametrize(
    ("away", "told"),
    [
        (((8, 12), (1, 1.9), (0.5, 1)), "5 DDIM steps are enough"),
        (((1, 1.9), (1, 3), (0.5, 1)), "10 DDIM steps are enough"),
        (((0.5, 1.9), (0.5, 1), (0.5, 1)), "2 DDIM steps are enough"),
        (((8, 12), (1, 3), (1, 2.1)), "10 DDIM steps are too few"),
    ],
)
def test_steps_are_enough_from_where_all_are_near_on(away, told):
    found = fast.find(rows(*away), PLAIN, 50, "20 %")
    assert found.startswith(told) and len(found.split()) <= 25


def test_what_nobody_can_judge_has_no_panel():
    images = {(name, n): np.zeros((1, 8, 8, 3)) for name in fast.SAMPLERS for n in (2, 5, 10)}
    for judged in (True, False):
        table = rows((8, 12), (4, 5), (1, 2), judged=judged)
        sheet = fast.figures.steps_sheet(images, np.zeros((1, 8, 8, 3)), table, "")
        assert len(sheet.axes) == 2 * 3 + 1 + 1 + judged


@pytest.mark.arithmetic
def test_it_saves_sheet_and_latents(tmp_path, monkeypatch, capfd):
    call(fast.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_fast_sampling")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["longest"].shape == (2, 64, 64, 3)
    assert all(
        saved[f"{name}.{n}"].shape == (2, 16, 16, 4) for name in fast.SAMPLERS for n in (1, 2)
    )
    assert not np.array_equal(saved[f"{PLAIN}.1"], saved[f"{PLAIN}.2"])
    report, _ = read_report(folder / "report.json")
    assert report.control.passed and report.control.outcome.startswith("0 with")
    assert report.numbers[f"{PLAIN}, 2 steps"] == report.table[1]["away"]
    assert report.table[0]["as asked"].n == 2 and capfd.readouterr().err == ""


def test_the_control_fails_where_a_run_is_not_the_same_twice(tmp_path, monkeypatch, capfd):
    predict, calls = StableDiffusion.predict_noise, iter(range(1000))

    def drifting(*given, **at):
        return predict(*given, **at) * np.float32(1 + 1e-6 * next(calls))

    monkeypatch.setattr(StableDiffusion, "predict_noise", drifting)
    with pytest.raises(SystemExit, match="the control failed: another seed moves DDIM"):
        call(fast.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_the_control_fails_where_sampling_noise_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(fast.SAMPLERS, FRESH, 0.0)
    with pytest.raises(SystemExit, match="control failed"):
        call(fast.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_a_latent_consistency_model_has_steps_of_its_own(tmp_path, monkeypatch, capfd):
    with np.load(GOLDEN) as found:
        oracles.write(tmp_path, oracles.LCM, json.loads(str(found["lcm/names"])))
    words = ["--weights", tmp_path, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit):
        call(fast.main, *words, monkeypatch=monkeypatch)
    assert "has no ε_uncond" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--counts", "5", "5"], "--counts takes 1 or more that rise"),
        (["--counts", "0", "5"], "counts are from 1 to below --steps"),
        (["--steps", "50"], "counts are from 1 to below --steps"),
        (["--longest", "50"], "--longest is called --steps now"),
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(fast.main, words, told, tmp_path / "out", monkeypatch, capfd)
