"""The script on DDIM inversion: its walk and its numbers on planted cases, its control, one run."""

from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_ddim_inversion as inversion
from stable_diffusion_tf import sampling, scheduler
from tests.experiments.test_scripts import PHOTO, call, check_refusal, only, spread
from xray import measure
from xray.methods import ddim_inversion
from xray.methods.ddim_inversion import ddim_invert, neighbour_correlation
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

SMALLEST = ["--steps", 2, "--guidance", 1, 7.5, "--number", 2]
ALPHAS = scheduler.alphas_cumprod()
CONTEXTS, UNCOND = np.full((2, 77, 3), 0.5, np.float32), np.full((1, 77, 3), -0.1, np.float32)
LATENTS = np.random.default_rng(0).standard_normal((2, 4, 4, 4), dtype=np.float32)


def far_from_home(predict, steps: int, guidance: float = 7.5) -> np.ndarray:
    """How far LATENTS are from where inversion and DDIM lead, if this predicts the noise."""
    model = SimpleNamespace(alphas=ALPHAS, timesteps=scheduler.timesteps, predict_noise=predict)
    noise = ddim_invert(model, CONTEXTS, LATENTS, UNCOND, steps, guidance)
    times = scheduler.timesteps(steps)
    step = sampling.ddim_sampler(predict, CONTEXTS, UNCOND, times, ALPHAS, guidance, 0.0, None)
    *_, last = sampling.walk(step, noise, range(steps))
    return np.abs(last.x_prev - LATENTS).max()


def by_words_and_time(x: np.ndarray, t: int, context: np.ndarray, step=None) -> np.ndarray:
    return np.zeros_like(x) + np.float32(1 + t / 1000) * context[:, :1, :1, None]


def by_latent(x: np.ndarray, t: int, context: np.ndarray, step=None) -> np.ndarray:
    return x * np.float32(np.sqrt(1 - ALPHAS[t]))


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_the_way_back_is_exact_where_the_noise_is_the_same_at_both_ends(steps):
    assert far_from_home(by_words_and_time, steps) < 1e-4


def test_smaller_steps_bring_back_more():
    far = [far_from_home(by_latent, steps) for steps in (5, 50, 500)]
    assert far[0] > 2 * far[1] > 4 * far[2] > 0


def test_latents_handed_in_stay_as_they_are():
    before = LATENTS.copy()
    far_from_home(by_latent, 2)
    np.testing.assert_array_equal(LATENTS, before)


def test_neighbours_that_are_alike_are_told_from_white_noise():
    white = np.random.default_rng(0).standard_normal((3, 32, 32, 4))
    np.testing.assert_allclose(neighbour_correlation(white), 0, atol=0.05)
    rows = np.repeat(white[:, :, :1], 32, axis=2)  # alike to the right, and not below
    np.testing.assert_allclose(neighbour_correlation(5 + 2 * rows), 0.5, atol=0.1)


@pytest.mark.arithmetic
def test_it_saves_sheet_and_walks(tmp_path, monkeypatch, capfd):
    call(inversion.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_ddim_inversion")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["images"].shape == saved["encoded.picture"].shape == (2, 64, 64, 3)
    mild, strong = saved["guidance 1.noise"], saved["guidance 7.5.noise"]
    assert mild.shape == (2, 16, 16, 4) and not np.array_equal(mild, strong)
    assert saved["guidance 7.5.picture"].shape == (2, 64, 64, 3)
    report, _ = read_report(folder / "report.json")
    rows = {row["noise"]: row for row in report.table}
    assert [*rows] == ["guidance 1", "guidance 7.5", "fresh noise", "encoded"]
    known = measure.psnr(saved["images"], saved["guidance 1.picture"]).mean()
    assert rows["guidance 1"]["2 steps"].value == pytest.approx(known, rel=1e-5)
    assert rows["encoded"]["2 steps"].value > rows["fresh noise"]["2 steps"].value
    assert rows["fresh noise"]["neighbours correlate"].value < 0.1
    assert report.control.outcome.endswith("less; the same bits")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("far", "twin"), [(99.0, 0), (3.0, 1)])
def test_the_control_fails(far, twin, tmp_path, monkeypatch):
    """Where fresh noise does nearly as well, and where a walk has two ends."""
    walk = inversion.there_and_back

    def drifting(*given):
        noise, pictures = walk(*given)
        return noise + twin, pictures

    monkeypatch.setattr(inversion, "there_and_back", drifting)
    monkeypatch.setattr(inversion, "FAR", far)
    with pytest.raises(SystemExit, match="control failed"):
        call(inversion.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_the_control_fails_where_the_noise_found_is_any_noise(tmp_path, monkeypatch):
    any_noise = np.random.default_rng(9).standard_normal((2, 16, 16, 4), dtype=np.float32)
    monkeypatch.setattr(ddim_inversion, "ddim_invert", lambda *given, **run: any_noise)
    with pytest.raises(SystemExit, match="control failed: fresh noise gives"):
        call(inversion.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_a_picture_goes_with_its_own_words(tmp_path, monkeypatch):
    monkeypatch.setattr(inversion, "FAR", -99.0)  # a photograph is not of the phantom's world
    words = [PHOTO, "--prompt", "a woman", *SMALLEST]
    call(inversion.main, *words, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_ddim_inversion")
    assert folder.name.endswith("-a-woman")
    assert load_file(folder / "tensors.safetensors")["images"].shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--number", "0"], "--number 0 is not from 1 to 64"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["no-such.png"], "a picture needs --prompt"),
        (["no-such.png", "--prompt", "a cat"], "there is no no-such.png"),
        (["--prompt", "a cat"], "a picture needs --prompt"),
        (["--steps", "10", "5"], "--steps takes 1 or more that rise"),
        (["--steps", "5", "2000"], "steps must be from 1 to 1000"),
        (["--guidance", "1"], "--guidance takes 2 or more that rise"),
        (["--guidance", "1", "inf"], "guidance of inf is no number"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(inversion.main, words, told, tmp_path / "out", monkeypatch, capfd)
