"""The script on forward noising: its numbers on planted noise, its control, the smallest run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_noise_schedule as schedule
from experiments.test_noise_schedule import CHANCE, STOPS
from stable_diffusion_tf import scheduler
from tests.experiments.test_scripts import PHOTO, call, check_refusal, only, spread
from xray.methods import forward_process
from xray.methods.forward_process import look, misses, straight_betas, walk
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

ALPHAS = scheduler.alphas_cumprod()
MEAN, VARIANCE, CORRELATION = range(3)


def latents(seed: int = 0) -> np.ndarray:
    """(8, 16, 16, 4) float32, far from Gaussian: of variance 1/3 about 0.5."""
    return np.random.default_rng(seed).uniform(-0.5, 1.5, (8, 16, 16, 4)).astype(np.float32)


def noised(x0: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return np.stack([scheduler.add_noise(x0, noise, t, ALPHAS) for t in STOPS])


def normal(x0: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(x0.shape)


def test_the_walk_is_what_the_formula_says():
    x0 = latents()
    x = walk(x0, ALPHAS, STOPS, np.random.default_rng(2))
    assert x.shape == (len(STOPS), *x0.shape) and x.dtype == np.float32
    assert np.abs(misses(x, x0, STOPS, ALPHAS)).max() < CHANCE
    assert not np.array_equal(x[-1], x[-2])


@pytest.mark.parametrize(
    ("wrong", "column"),
    [
        (lambda noise, x0: noise + 0.1, MEAN),
        (lambda noise, x0: 1.1 * noise, VARIANCE),
        (lambda noise, x0: (noise + 0.2 * (x0 - 0.5)) / np.sqrt(1 + 0.04 / 3), CORRELATION),
    ],
)
def test_a_planted_flaw_of_the_noise_is_seen_where_it_is(wrong, column):
    x0 = latents()
    assert np.abs(misses(noised(x0, normal(x0)), x0, STOPS, ALPHAS)).max() < CHANCE
    found = misses(noised(x0, wrong(normal(x0), x0)), x0, STOPS, ALPHAS)
    assert (found[:, column] > CHANCE).all()
    assert np.abs(np.delete(found, column, axis=1)).max() < CHANCE


def test_what_x_is_made_of_is_measured():
    x0 = latents()
    seen = look(noised(x0, normal(x0)), x0, STOPS, ALPHAS)
    alpha = ALPHAS[list(STOPS)]
    assert seen.share == pytest.approx(np.sqrt(alpha), abs=0.03)
    assert seen.noise == pytest.approx(1 - alpha, rel=0.04)
    assert seen.variance == pytest.approx(1 - alpha + alpha / 3, rel=0.05)


def test_the_wrong_table_has_the_same_ends():
    betas = 1 - straight_betas()[1:] / straight_betas()[:-1]
    assert np.diff(betas) == pytest.approx((0.012 - 0.00085) / 999)
    assert betas[-1] == pytest.approx(1 - ALPHAS[-1] / ALPHAS[-2])


def test_it_saves_sheet_and_walk(tmp_path, monkeypatch, capfd):
    call(schedule.main, "--number", 8, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_noise_schedule")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["x"].shape == (len(STOPS), 8, 16, 16, 4)
    assert saved["pictures"].shape == (len(STOPS), 64, 64, 3)
    assert np.abs(misses(saved["x"], saved["x0"], STOPS, ALPHAS)).max() < CHANCE
    said, complained = capfd.readouterr()
    assert complained == "" and "control  the wrong table" in said
    report, _ = read_report(folder / "report.json")
    assert report.numbers["SNR at the last timestep"] == pytest.approx(0.0047, abs=5e-5)
    assert str(folder / "figure.png") in said


def test_it_takes_a_photograph(tmp_path, monkeypatch, capfd):
    call(schedule.main, PHOTO, "--number", 4, "--out", tmp_path, monkeypatch=monkeypatch)
    saved = load_file(only(tmp_path / "test_noise_schedule") / "tensors.safetensors")
    assert saved["x0"].shape == (4, 16, 16, 4)
    np.testing.assert_array_equal(saved["x0"][0], saved["x0"][3])
    assert not np.array_equal(saved["x"][:, 0], saved["x"][:, 3])


def test_the_formula_fails_where_the_noise_is_not_scaled(tmp_path, monkeypatch):
    monkeypatch.setattr(forward_process, "walk", lambda *given: walk(*given) * np.float32(1.1))
    with pytest.raises(SystemExit, match="x_t is not what the formula says"):
        call(schedule.main, "--number", 4, "--out", tmp_path, monkeypatch=monkeypatch)


def test_the_control_fails_where_the_wrong_table_is_the_right_one(tmp_path, monkeypatch):
    monkeypatch.setattr(forward_process, "straight_betas", scheduler.alphas_cumprod)
    with pytest.raises(SystemExit, match="control failed"):
        call(schedule.main, "--number", 4, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--number", "0"], "--number 0 is not from 4 to 256"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["no-such.png"], "there is no no-such.png"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(schedule.main, words, told, tmp_path / "out", monkeypatch, capfd)
