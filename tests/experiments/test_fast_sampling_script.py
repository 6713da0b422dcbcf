"""The script on the number of steps: its numbers on planted cases, and the smallest run."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_fast_sampling as fast
from experiments.figures.fast_sampling import Longest, Sampled
from stable_diffusion_tf import StableDiffusion
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray.measure.telling import with_error

pytestmark = pytest.mark.usefixtures("loaded")

SMALLEST = ["a cat", "--counts", 1, 2, "--longest", 4, "--pictures", 2]
FRESH = np.array([0.0, 0, 0, 100])


@pytest.mark.parametrize(
    ("right", "start"),
    [
        ([[0, 0, 0, 0], [0, 100, 100, 100], [100, 100, 100, 100]], 1),
        ([[100, 100, 100, 100], [0, 0, 0, 0], [100, 100, 100, 0]], 2),
        ([[100, 100, 100, 100], [100, 100, 0, 100], [100, 100, 100, 100]], 0),
        ([[100, 100, 100, 100], [100, 100, 100, 100], [0, 0, 0, 0]], None),
    ],
)
def test_steps_are_enough_from_where_no_fewer_are_right_on(right, start):
    assert fast.find_enough(np.array(right, float), np.full(4, 100.0)) == start


def planted(right) -> tuple[list[Sampled], Longest]:
    images, far = np.zeros((2, 2, 8, 8, 3)), np.array([[8.0, 12.0], [1.0, 3.0]])
    samplers = [Sampled(name, images, far, np.ones(2), right) for name in fast.SAMPLERS]
    aim = Longest(9, images[0, 0], 2.0, 20.0, None if right is None else np.full(2, 100.0))
    return samplers, aim


@pytest.mark.parametrize(
    ("right", "begins"),
    [
        (None, "2 steps end 10.0 ± 2.0 % of full scale off the run of 9, "),
        (
            np.array([[0, 0], [100, 100]]),
            "from 5 steps on (100 ± 0 %) the judge cannot tell a run from 9 ",
        ),
        (np.zeros((2, 2)), "every shorter run has fewer pictures right than 9 steps (100 ± 0 %"),
    ],
)
def test_what_is_found_is_told_with_its_errors(right, begins):
    told = fast.finding([2, 5], *planted(right))
    assert told.startswith(begins)
    assert "2 steps end 10.0 ± 2.0 % of full scale off the run of 9, 5 steps 2.0 ± 1.0 %" in told
    assert "another noise: 20.0 %" in told


def test_what_nobody_can_judge_has_no_panel():
    sheets = [fast.figures.steps_sheet([2, 5], *planted(r), "") for r in (None, np.ones((2, 2)))]
    assert [len(sheet.axes) for sheet in sheets] == [2 * 2 + 1 + 2, 2 * 2 + 1 + 3]
    end = fast.Drawn(np.zeros((2, 8, 8, 4)), np.zeros((2, 32, 32, 3)), 1.0)
    assert fast.measure_longest(end, 9, "a cat").right is None
    assert fast.measure_runs("", [end], end, "a cat").right is None


def test_a_mean_is_told_with_its_error():
    assert with_error(FRESH, 0, "%") == "25 ± 25 %" and with_error(FRESH[:1]) == "0.0"


@pytest.mark.arithmetic
def test_it_saves_sheet_and_latents(tmp_path, monkeypatch, capfd):
    call(fast.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_fast_sampling")
    assert spread(folder / "steps.png") > 10
    saved = load_file(folder / "latents.safetensors")
    assert saved["longest"].shape == (2, 16, 16, 4)
    assert all(saved[name].shape == (2, 2, 16, 16, 4) for name in fast.SAMPLERS)
    assert not np.array_equal(*saved["DDIM, η = 0"])
    said, complained = capfd.readouterr()
    assert complained == "" and "control  another seed moves the latents by 0, with η = 1" in said
    assert str(folder / "steps.png") in said and "finding  " in said


def test_the_control_fails_where_a_run_is_not_the_same_twice(tmp_path, monkeypatch, capfd):
    predict, calls = StableDiffusion.predict_noise, iter(range(1000))

    def drifting(*given, **at):
        return predict(*given, **at) * np.float32(1 + 1e-6 * next(calls))

    monkeypatch.setattr(StableDiffusion, "predict_noise", drifting)
    with pytest.raises(SystemExit, match="the control failed: it moves DDIM by"):
        call(fast.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize("moved", [(0.1, 1), (0, 0)])
def test_the_control_wants_fresh_noise_to_matter_just_where_there_is_some(moved):
    fast.check_control(0, 1)
    with pytest.raises(SystemExit, match="control failed"):
        fast.check_control(*moved)


def test_a_latent_consistency_model_has_steps_of_its_own(tmp_path, monkeypatch, capfd):
    with np.load(GOLDEN) as found:
        oracles.write(tmp_path, oracles.LCM, json.loads(str(found["lcm/names"])))
    words = ["--weights", tmp_path, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit):
        call(fast.main, *words, monkeypatch=monkeypatch)
    assert "has steps of its own kind" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--counts", "5", "5"], "counts and the longest must rise"),
        (["--counts", "0", "5"], "counts and the longest must rise"),
        (["--longest", "50"], "counts and the longest must rise"),
        (["--longest", "1001"], "steps must be from 1 to 1000"),
        (["--pictures", "1"], "--pictures 1 is not from 2 to 64"),
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(fast.main, words, told, tmp_path / "out", monkeypatch, capfd)
