"""The script on latent statistics: its number on planted latents, its control, the smallest run."""

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from experiments import test_latent_statistics as statistics
from phantom.world import render, scenes
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

SMALLEST = ["--number", 8]


def test_the_scale_is_one_over_the_standard_deviation_of_all_values():
    rng = np.random.default_rng(0)
    picture = np.tile([1, -1], 32)[:, None, None, None]
    latents = 2 * rng.standard_normal((64, 16, 16, 4)) + picture + [2, -2, 2, -2]
    scale, low, high, *_ = statistics.find_factor(latents, rng)
    assert scale == pytest.approx(1 / 3, rel=0.01), "2² in a position, 1² by picture, 2² by channel"
    assert low < scale < high and high - low < 0.02


def test_the_interval_is_over_pictures_and_not_over_positions():
    rng = np.random.default_rng(0)
    power = np.tile([1, 3], 200)[:, None, None, None]
    latents = np.sqrt(power) * rng.standard_normal((400, 16, 16, 4))
    scale, low, high, *_ = statistics.find_factor(latents, rng)
    error = 1 / np.sqrt(400)  # of the mean power, which is 2
    assert high - low == pytest.approx(2 * 1.96 * scale / 2 * error / 2, rel=0.12)


def test_it_saves_sheet_and_latents(tmp_path, monkeypatch, capfd):
    call(statistics.main, "--number", 32, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_latent_statistics")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["pictures"].shape == saved["pure noise"].shape == (32, 16, 16, 4)
    report, _ = read_report(folder / "report.json")
    factor = report.numbers["scaling factor"]
    assert factor.value == pytest.approx(1 / saved["pictures"].std(dtype=np.float64), rel=1e-5)
    assert factor.value == pytest.approx(0.26, rel=0.1), "the phantom's own"
    assert report.table[3]["std"] == pytest.approx(saved["pictures"][..., 3].std(), rel=1e-5)
    assert capfd.readouterr().err == ""


def test_it_takes_a_folder(tmp_path, monkeypatch):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for i, scene in enumerate(scenes(0, 9)):
        Image.fromarray(render(scene)).resize((80, 90)).save(photos / f"{i}.png")
    (photos / "notes.txt").write_text("no picture")
    call(statistics.main, photos, *SMALLEST, "--out", out, monkeypatch=monkeypatch)
    saved = load_file(only(out / "test_latent_statistics") / "tensors.safetensors")
    assert saved["pictures"].shape == (8, 16, 16, 4)
    assert saved["pictures"].mean((1, 2, 3)).std() > 0.1


def test_the_control_fails_where_noise_looks_like_the_pictures(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    alike = [rng.standard_normal((8, 4, 4, 4), dtype=np.float32) for _ in range(2)]
    monkeypatch.setattr(statistics, "encode", lambda *_: alike.pop())
    with pytest.raises(SystemExit, match="control failed"):
        call(statistics.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--number", "7"], "--number 7 is not from 8 to 1024"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["no-such"], "there is no folder no-such"),
        (["empty"], "no picture in empty"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    check_refusal(statistics.main, words, told, tmp_path / "out", monkeypatch, capfd)
