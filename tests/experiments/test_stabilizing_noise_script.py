"""The script on the noise that sampling adds back: its rules, its numbers, the smallest run."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_stabilizing_noise as stabilizing
from experiments.test_stabilizing_noise import RULES
from stable_diffusion_tf import scheduler
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray import measure
from xray.measure import Estimate
from xray.methods import ancestral
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

ALPHAS = scheduler.alphas_cumprod()
SMALLEST = ["a cat", "--pictures", 2, "--steps", 4]


def normals(number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, 8, 8, 4), dtype=np.float32) for _ in range(number)]


@pytest.mark.parametrize("factor", [0, 0.5, 1, 1.5])
def test_a_factor_scales_the_fresh_noise_alone(factor):
    x, eps, noise = normals(3)
    step = 500, 480, ALPHAS
    still = scheduler.ddpm_step(x, eps, *step, np.zeros_like(noise))[0]
    whole = scheduler.ddpm_step(x, eps, *step, noise)[0]
    found = ancestral.ancestral(factor)(x, eps, *step, noise)[0]
    np.testing.assert_allclose(found - still, factor * (whole - still), atol=1e-5)


def test_ddim_with_all_the_noise_is_ddpm():
    x, eps, noise = normals(3)
    given = x, eps, 500, 480, ALPHAS, noise
    one, other = (rule(*given)[0] for rule in (ancestral.implicit(1), ancestral.ancestral(1)))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_detail_tells_blur_from_noise():
    (noise,) = normals(1)
    images = np.stack([np.zeros((8, 8, 3)), np.clip(noise[0, ..., :3], -1, 1)])
    stripes = np.zeros((8, 8, 3))
    stripes[:, ::2] = 1
    flat, rough = measure.detail(images)
    assert flat == 0 and rough > 10
    assert measure.detail(stripes) == pytest.approx(25)


def test_what_is_found_is_chosen_by_the_numbers():
    table = [{"least variance": Estimate(10.0, 9.0, 11.0, 8, "%")}]
    assert stabilizing.find(table, True) == (
        "Without its sampling noise DDPM's variance falls to 10.0 % [9.0, 11.0] of the schedule's, "
        "and pictures lose detail."
    )
    assert "with no significant loss of detail" in stabilizing.find(table, False)


@pytest.mark.arithmetic
def test_it_saves_sheet_and_runs(tmp_path, monkeypatch, capfd):
    call(stabilizing.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_stabilizing_noise")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["x"].shape == (5, len(RULES), 2, 16, 16, 4)
    assert saved["pictures"].shape == (len(RULES), 2, 64, 64, 3)
    assert all(np.array_equal(x, saved["x"][0, 0]) for x in saved["x"][0])
    none, half, *_ = half_way = saved["x"][2].var(axis=(1, 2, 3, 4))
    assert none < half < half_way[2] < half_way[3], "more noise, more variance"
    report, _ = read_report(folder / "report.json")
    assert report.control.outcome == "the same bits; 4 of 6" and report.control.passed
    alpha = ALPHAS[[751, 501, 251, 1]]
    due = 1 - alpha + alpha * saved["x"][-1, 2].var()
    least = (saved["x"][:-1, 0].var(axis=(2, 3, 4)) / due[:, None]).min(0).mean()
    assert report.table[0]["least variance"].value == pytest.approx(100 * least, rel=1e-4)
    assert report.table[0]["as asked"].n == 2 and capfd.readouterr().err == ""


def test_the_run_without_noise_ends_where_ddim_does(phantom):
    """Ours is the loop of `sd.denoise`, at no guidance."""
    noise, context = phantom.draw_noise(0, 2), phantom.encode_text("a cat")
    x = ancestral.walk(phantom, context, noise, [*RULES.values()], [(751, 501), (501, 251)], 0)
    contexts = np.repeat(context, 6, 0)  # as many rows for the UNet: nothing is compiled anew
    again = np.tile(noise, (3, 1, 1, 1))
    first, second, *_ = phantom.denoise(contexts, contexts, 4, 1.0, latent=again)
    np.testing.assert_allclose(x[1, 5], first.x_prev[:2], atol=1e-4)
    np.testing.assert_allclose(x[2, 5], second.x_prev[:2], atol=1e-4)


def test_the_control_fails_where_the_factor_is_not_one(tmp_path, monkeypatch):
    monkeypatch.setitem(RULES, "DDPM, noise × 1", ancestral.ancestral(1.001))
    with pytest.raises(SystemExit, match="noise × 1 is not what plain DDPM gives"):
        call(stabilizing.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_the_control_fails_where_a_rule_that_adds_none_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(stabilizing, "QUIET", [0])
    with pytest.raises(SystemExit, match="another z moves the wrong rules"):
        call(stabilizing.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_a_latent_consistency_model_has_a_rule_of_its_own(tmp_path, monkeypatch, capfd):
    with np.load(GOLDEN) as found:
        oracles.write(tmp_path, oracles.LCM, json.loads(str(found["lcm/names"])))
    words = ["--weights", tmp_path, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit):
        call(stabilizing.main, *words, monkeypatch=monkeypatch)
    assert "has no ε_uncond" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--steps", "3"], "--steps 3 is not from 4 to 1000"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(stabilizing.main, words, told, tmp_path / "out", monkeypatch, capfd)
