"""The script on the training loss: its numbers on planted noise, its control, the smallest run."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from experiments import test_training_step as training
from experiments.test_training_step import TIMES, Options
from phantom.world import for_evaluation, held_out, render, scenes
from stable_diffusion_tf import scheduler
from tests.experiments.test_scripts import PHOTO, call, check_refusal, only, spread
from xray.methods.denoising_loss import measure_errors, misses, predict_all
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

ALPHAS = scheduler.alphas_cumprod()


def planted(number: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Latents of variance 1/4 and standard normal noise for each at each timestep."""
    rng = np.random.default_rng(0)
    x0 = rng.normal(0, 0.5, (number, 8, 8, 4)).astype(np.float32)
    return x0, rng.standard_normal((number, len(TIMES), 8, 8, 4), dtype=np.float32)


def test_the_error_is_that_of_what_is_predicted():
    """The network knows the first picture's latent, and says zero where the words do."""
    x0, noise = planted(2)

    def predict(x, t, context):
        known = scheduler.predict_eps(x, x0[:1].repeat(len(t), 0), t, ALPHAS)
        return known * context[:, :1, :1, None]

    sd = SimpleNamespace(alphas=ALPHAS, predict_noise=predict)
    contexts = np.zeros((2, 2, 77, 8), np.float32)
    contexts[0] = 1
    loss, predicted = predict_all(sd, x0, noise, contexts, TIMES)
    assert loss.shape == (2, 2, len(TIMES)) and predicted.shape == (2, *noise.shape[1:])
    assert loss[0, 0] == pytest.approx(0, abs=1e-4) and (loss[0, 1] > 1e-4).all()
    np.testing.assert_allclose(loss[1], np.mean(noise**2, axis=(2, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(predicted[0], noise[0], atol=2e-2)


def test_the_best_multiple_of_x_is_what_least_squares_finds():
    x0, noise = planted(64)
    errors = measure_errors(np.full(len(TIMES), 0.1), x0, TIMES, ALPHAS)
    for i, t in enumerate(TIMES):
        x = scheduler.add_noise(x0, noise[:, i], t, ALPHAS)
        share = np.vdot(x, noise[:, i]) / np.vdot(x, x)
        left = np.mean((noise[:, i] - share * x) ** 2)
        assert errors.scaled[i] == pytest.approx(left, rel=0.03, abs=2e-3)


def test_an_error_of_the_noise_is_one_of_the_latent():
    x0, noise = planted()
    errors = measure_errors(np.full(len(TIMES), 0.04), x0, TIMES, ALPHAS)
    for i, t in enumerate(TIMES):
        x = scheduler.add_noise(x0, noise[:, i], t, ALPHAS)
        found = scheduler.predict_x0(x, noise[:, i] + np.float32(0.2), t, ALPHAS)
        assert np.mean((found - x0) ** 2) == pytest.approx(errors.x0[i], rel=1e-2)


def test_noise_of_another_size_misses():
    _, noise = planted(32)
    assert misses(noise).shape == TIMES.shape and misses(noise).max() < 5
    assert misses(1.1 * noise).min() > 5 and misses(0.9 * noise).min() > 5


def test_scenes_were_never_shown_in_training_and_words_go_round(sd):
    images, own, others = training.find_cases(sd, Options(number=5))
    assert images.shape == (5, 64, 64, 3) and others == [*own[1:], own[0]]
    assert all(
        held_out(*(thing.name for thing in scene.things))
        or held_out(scene.things[0].name, scene.background)
        for scene in scenes(0, 5, for_evaluation)
    )


def test_it_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(training.main, "--number", 4, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_training_step")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["loss"].shape == (3, 4, len(TIMES)) and saved["timesteps"].tolist() == [*TIMES]
    assert saved["noise"].shape == (len(TIMES), 16, 16, 4)
    assert saved["predicted"].shape == (3, *saved["noise"].shape)
    own = np.mean((saved["predicted"][0] - saved["noise"]) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(own, saved["loss"][0, 0], rtol=1e-4)
    report, _ = read_report(folder / "report.json")
    assert report.finding.startswith("The noise is hardest to predict at t = 1: ")
    loss, words = saved["loss"].mean(1), report.table[4]["saved against no words"]
    assert words.value == pytest.approx(100 * (1 - loss[0, 4] / loss[1, 4]), rel=1e-4)
    assert capfd.readouterr().err == ""


def test_the_control_fails_where_the_words_of_a_picture_are_mixed_up(tmp_path, monkeypatch):
    (scene,) = scenes(7, 1, for_evaluation, 1)
    Image.fromarray(render(scene)).save(tmp_path / "scene.png")
    find = training.find_cases

    def mixed_up(*given):
        images, own, others = find(*given)
        assert own == [scene.caption] * 4
        return images, others, own

    monkeypatch.setattr(training, "find_cases", mixed_up)
    words = [tmp_path / "scene.png", "--prompt", scene.caption, "--number", 4]
    with pytest.raises(SystemExit, match="another's words do better"):
        call(training.main, *words, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    folder = only(tmp_path / "out" / "test_training_step")
    assert load_file(folder / "tensors.safetensors")["loss"].shape == (3, 4, len(TIMES))


def test_the_control_wants_noise_of_unit_variance(tmp_path, monkeypatch):
    monkeypatch.setattr(training.denoising_loss, "misses", lambda noise: np.array([1.0, 6.0]))
    with pytest.raises(SystemExit, match="has not the variance 1"):
        call(training.main, "--number", 4, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--number", "3"], "--number 3 is not from 4 to 512"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--prompt", "a cat"], "a picture and its words go together"),
        ([PHOTO], "a picture and its words go together"),
        (["no-such.png", "--prompt", "a cat"], "there is no no-such.png"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(training.main, words, told, tmp_path / "out", monkeypatch, capfd)
