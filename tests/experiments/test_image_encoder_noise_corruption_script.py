"""The script on corrupted latents: its numbers on planted ones, its control, the smallest run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_image_encoder_noise_corruption as corruption
from tests.experiments.test_scripts import PHOTO, call, check_refusal, only, spread
from xray.methods import latent_noise
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")


def latents(n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 10, 10, 4), dtype=np.float32) + 5


def hit(noisy: np.ndarray) -> np.ndarray:
    """Which positions were replaced, (n, h, w): in all channels, or in none."""
    changed = noisy != latents(len(noisy))
    np.testing.assert_array_equal(changed.all(-1), changed.any(-1))
    return changed.all(-1)


@pytest.mark.parametrize("share", [0, 0.01, 0.25, 1])
def test_a_share_of_the_positions_is_replaced_in_each_latent(share):
    noisy = latent_noise.replace(latents(), share, 0.5, seed=0)
    assert noisy.dtype == np.float32 and noisy.shape == latents().shape
    np.testing.assert_array_equal(hit(noisy).sum((1, 2)), [100 * share] * 2)


def test_what_replaces_them_is_noise_of_that_std_and_not_added():
    noisy = latent_noise.replace(latents(), 1, 0.5, seed=0)
    assert noisy.mean() == pytest.approx(0, abs=0.06) and noisy.std() == pytest.approx(0.5, rel=0.1)
    assert not latent_noise.replace(latents(), 1, 0, seed=0).any()
    assert not np.array_equal(noisy[0], noisy[1])


def test_more_positions_hold_the_fewer_and_the_noise_is_the_same_but_stronger():
    few, many = (latent_noise.replace(latents(), share, 1, seed=0) for share in (0.1, 0.5))
    assert (hit(few) <= hit(many)).all()
    np.testing.assert_array_equal(few[hit(few)], many[hit(few)])
    strong = latent_noise.replace(latents(), 0.1, 4, seed=0)
    np.testing.assert_allclose(strong[hit(few)], 4 * few[hit(few)], rtol=1e-5)
    other = latent_noise.replace(latents(), 0.1, 1, seed=1)
    assert not np.array_equal(hit(few), hit(other))


def test_the_share_where_so_much_is_lost_lies_between_those_tried():
    psnr = np.array([[20.0, 20, 20], [19, 18, 16], [15, 18, 10]])  # (shares, n)
    found = latent_noise.share_where_lost(psnr, (0, 0.2, 1), loss=3)
    np.testing.assert_allclose(found, [0.6, 1, 0.15])


@pytest.mark.arithmetic
def test_it_saves_grid_and_surface(tmp_path, monkeypatch, capfd):
    call(corruption.main, "--number", 2, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_image_encoder_noise_corruption")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["latents"].shape == (2, 16, 16, 4) and saved["psnr"].shape == (7, 6, 2)
    assert saved["pictures"].shape == (7, 6, 64, 64, 3)
    psnr = saved["psnr"].mean(-1)
    assert (psnr[0] == psnr[0, 0]).all() and (np.diff(psnr[:, 3]) < 0).all()
    assert psnr[2, 5] < psnr[2, 3] < psnr[2, 1]
    report, _ = read_report(folder / "report.json")
    lost = psnr[0, 3] - psnr[2, 3]
    assert report.table[3]["dB lost at 5%"].value == pytest.approx(lost, abs=1e-4)
    assert len(report.finding.split()) <= 25 and capfd.readouterr().err == ""


def test_the_control_fails_where_nothing_replaced_is_something(tmp_path, monkeypatch):
    right = latent_noise.replace
    monkeypatch.setattr(latent_noise, "replace", lambda *given: right(*given) + np.float32(1e-3))
    words = [PHOTO, "--number", 2, "--shares", 0, 1, "--out", tmp_path]
    with pytest.raises(SystemExit, match="control failed"):
        call(corruption.main, *words, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_image_encoder_noise_corruption")
    saved = load_file(folder / "tensors.safetensors")
    np.testing.assert_array_equal(*saved["latents"])
    assert saved["psnr"][1, 3, 0] != saved["psnr"][1, 3, 1], "each has its own noise"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--number", "1"], "--number 1 is not from 2 to 256"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--shares", "1", "0"], "--shares takes 2 or more that rise; try --shares 0 0.1 1"),
        (["--shares", "0.1", "1"], "--shares go from 0 to 1 at most"),
        (["--amplitudes", "0", "2"], "--amplitudes from 0 and over 1; try --shares"),
        (["no-such"], "there is no no-such"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    check_refusal(corruption.main, words, told, tmp_path / "out", monkeypatch, capfd)
