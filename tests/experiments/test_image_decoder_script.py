"""The script on the decoder: its numbers on planted maps, its control, the smallest run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_image_decoder as decoder
from tests.experiments.test_scripts import PHOTO, call, check_refusal, only, spread
from xray.methods import receptive_field
from xray.methods.drawing import decode
from xray.methods.linear_decoder import Linear, cut, explained, fit_and_test, over_pixels
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

SMALLEST = ["--number", 8]


def planted(noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents, a matrix, and pictures of which it makes the colours, and noise the rest."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((24, 8, 8, 4))
    matrix = np.array([[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1], [0, 0, 0]])
    colours = latents @ matrix + noise * rng.standard_normal((24, 8, 8, 3))
    bias = np.array([0, 0.1, 0.2])
    return latents, matrix, over_pixels(colours + bias, np.empty((24, 16, 16, 3)))


def fit(noise: float) -> Linear:
    latents, _, images = planted(noise)
    return fit_and_test(latents, images, np.random.default_rng(1))


def test_a_planted_map_is_found_and_explains_all():
    linear = fit(0)
    np.testing.assert_allclose(linear.matrix, planted(0)[1], atol=1e-6)
    np.testing.assert_allclose(linear.bias, [0, 0.1, 0.2], atol=1e-6)
    assert linear.places.value == pytest.approx(100) and linear.pixels.low == pytest.approx(100)
    assert linear.shuffled.value < 5


def test_noise_as_strong_as_the_map_leaves_half():
    linear = fit(0.1)
    assert linear.places.value == pytest.approx(50, abs=5)
    assert linear.places.low < linear.places.value < linear.places.high
    assert linear.places.width < 10


def test_few_pictures_are_cut_into_pieces_latent_and_pixels_alike():
    latents, _, images = planted(0)
    pieces = cut(images[:2])
    assert pieces.shape == (32, 4, 4, 3)
    np.testing.assert_array_equal(pieces[16 + 6], images[1, 4:8, 8:12])
    linear = fit_and_test(latents[:2], images[:2], np.random.default_rng(1))
    assert linear.places.value == pytest.approx(100)


def test_the_interval_is_over_pictures():
    rng = np.random.default_rng(0)
    signs = np.where(rng.random(100) < 0.5, -1.0, 1.0)
    images = np.broadcast_to(signs[:, None, None, None], (100, 8, 8, 3))
    guess = images * (rng.random((100, 1, 1, 1)) < 0.5)  # for half of the pictures, all right
    share = explained(images, guess, rng)
    assert share.value == pytest.approx(50, abs=15)
    assert share.width == pytest.approx(100 * 2 * 1.96 * 0.5 / 10, rel=0.2)


def test_the_radius_holds_what_is_planted():
    far = receptive_field.distances(9, 9, np.array([4.5, 4.5]))
    assert far[4, 4] == 0 and far[4, 7] == 3 and far[1, 8] == 5
    assert (far == 3).sum() == 4 and (far == 5).sum() == 8
    change = np.select([far == 0, far == 3, far == 5], [90, 1, 0.75])  # 100 in all
    for share, radius in ((0.85, 0), (0.92, 3), (0.95, 5)):
        assert receptive_field.radius_holding(change, far, share) == radius
    rings = receptive_field.ring_means(np.where(far < 2, 1.0, 0.0), far)
    np.testing.assert_array_equal(rings[:3], [1, 1, 0])


def test_the_change_is_a_share_of_full_scale():
    black, white = -np.ones((2, 2, 3)), np.ones((2, 2, 3))
    np.testing.assert_array_equal(receptive_field.squared_change(black, white), np.ones((2, 2)))


def test_odd_latents_are_what_they_are_called():
    latents = np.random.default_rng(0).standard_normal((2, 8, 8, 3), dtype=np.float32)
    odd = decoder.vary(latents, np.random.default_rng(1))
    assert [*odd][-1] == "channel 2 alone" and len(odd) == 6
    assert all(x.shape == latents.shape and x.dtype == np.float32 for x in odd.values())
    tiled = odd["middle, tiled"]
    np.testing.assert_array_equal(tiled[:, :4, :4], latents[:, 2:6, 2:6])
    np.testing.assert_array_equal(tiled[:, :4, :4], tiled[:, 4:, 4:])
    np.testing.assert_array_equal(odd["right half 0"][:, :, :4], latents[:, :, :4])
    assert not odd["right half 0"][:, :, 4:].any()
    np.testing.assert_array_equal(odd["channel 1 alone"].any((0, 1, 2)), [False, True, False])


@pytest.mark.arithmetic
def test_it_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(decoder.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_image_decoder")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["latents"].shape == (8, 16, 16, 4) and saved["matrix"].shape == (4, 3)
    assert saved["decoded"].shape == (8, 64, 64, 3)
    assert saved["Gaussian noise"].shape == saved["the matrix"].shape == (3, 64, 64, 3)
    assert saved["radii"].shape == (32,) and saved["around"].shape == (36, 36)
    assert saved["rms"].argmax() < 4, "the change is where the cell is"
    report, _ = read_report(folder / "report.json")
    assert report.numbers["R² of positions"].n == 4 and len(report.table) == 5
    assert report.table[1]["blue"] == pytest.approx(saved["matrix"][1, 2])
    assert capfd.readouterr().err == ""


def test_the_control_fails_where_decoding_is_a_lottery(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(
        receptive_field, "decode", lambda sd, x: decode(sd, x) + 1e-6 * rng.random()
    )
    with pytest.raises(SystemExit, match=r"control failed: .*one latent gave two"):
        call(decoder.main, PHOTO, "--out", tmp_path, monkeypatch=monkeypatch)
    saved = load_file(only(tmp_path / "test_image_decoder") / "tensors.safetensors")
    assert saved["latents"].shape == (1, 16, 16, 4)


def test_the_control_fails_where_shuffled_pictures_are_explained(tmp_path, monkeypatch):
    fitted = decoder.fit_and_test
    alike = lambda *given: (made := fitted(*given))._replace(shuffled=made.places)  # noqa: E731
    monkeypatch.setattr(decoder, "fit_and_test", alike)
    with pytest.raises(SystemExit, match="control failed: a map fitted to shuffled"):
        call(decoder.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--number", "7"], "--number 7 is not from 8 to 512"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["no-such"], "there is no no-such"),
        (["empty"], "no picture in empty"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    check_refusal(decoder.main, words, told, tmp_path / "out", monkeypatch, capfd)
