"""The script on the UNet's features: its probes on planted features, the smallest run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_unet_features as features
from phantom import lessons
from phantom.world import masks, scenes
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray.film import Film
from xray.methods import linear_probe
from xray.methods.linear_probe import Scores
from xray.report import read_report
from xray.rounding import Held

pytestmark = pytest.mark.usefixtures("loaded")

RNG = np.random.default_rng(0)
SMALLEST = ["--steps", 2, "--number", 8]


def squares(n: int = 12) -> np.ndarray:
    """A thing to the left and one to the right, each 2 × 3 positions somewhere in its half."""
    found = np.zeros((n, 8, 8), bool)
    for first in (0, 4):
        for one, row in zip(found, RNG.integers(0, 6, n), strict=True):
            one[row : row + 2, first : first + 3] = True
    return found


def planted(known: np.ndarray) -> np.ndarray:
    """(n, h, w, 5): channels that hold the things, mixed, large and noisy, and noise."""
    noise = RNG.normal(size=(*known.shape, 5))
    noise[..., :2] *= 0.05
    mixed = np.array([30, -15, 0, 0, 0])
    return known[..., None] * mixed + noise * [30, 20, 1, 1, 1] + 7


# --- planted cases


def test_probes_find_what_is_in_the_features_of_other_pictures():
    known = squares()
    things, shuffled = linear_probe.examine(planted(known), known, 8, RNG)
    assert things.shape == shuffled.shape == (4,)
    assert (things > 0.9).all() and (shuffled < 0.5).all()
    assert (linear_probe.draw_mask(planted(known), known, 8) == known[8]).mean() > 0.98


def test_probes_of_noise_are_at_chance():
    known = squares(40)
    noise = RNG.normal(size=(40, 8, 8, 5))
    things, shuffled = linear_probe.examine(noise, known, 30, RNG)
    assert shuffled.mean() < known.mean() + features.SLACK
    assert things.mean() == pytest.approx(known.mean(), abs=0.06)


def test_a_channel_without_variance_does_no_harm():
    known = squares()
    dead = planted(known)
    dead[..., 3] = 5.0
    assert (linear_probe.examine(dead, known, 8, RNG)[0] > 0.9).all()


def test_position_alone_finds_what_always_stands_in_one_place():
    known = np.zeros((12, 8, 8), bool)
    known[:, 2:5, :4] = True
    place = np.broadcast_to(linear_probe.places(8, 8), (12, 8, 8, 5))
    assert (linear_probe.examine(place, known, 8, RNG)[0] > 0.65).all()


def test_a_coarse_grid_bounds_the_iou():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :2, :2] = True
    assert linear_probe.ceiling(mask, 2, 2) == 1 == linear_probe.ceiling(mask, 4, 4)
    assert linear_probe.ceiling(mask, 1, 1) == pytest.approx(4 / 16)
    mask[0, 0, 2] = True  # a quarter of its position: better left out
    assert linear_probe.ceiling(mask, 2, 2) == pytest.approx(4 / 5)


def test_components_keep_their_colour_and_forget_the_mean_of_a_step():
    maps = RNG.normal(size=(1, 6, 6, 2)) * [10, 1]
    steps = np.concatenate([maps, maps + 100, -maps])
    found = linear_probe.components(steps, 1)
    assert found.shape == (3, 6, 6, 1) and found.min() == 0 and found.max() == 1
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)
    inside = (found[0] > 0) & (found[0] < 1) & (found[2] > 0) & (found[2] < 1)
    assert abs(np.corrcoef(found[0][inside], found[2][inside])[0, 1] + 1) < 1e-6
    assert abs(np.corrcoef(found[0][inside], maps[0, ..., :1][inside])[0, 1]) > 0.99
    np.testing.assert_allclose(linear_probe.likeness(steps), [-1, -1, 1])


def test_the_things_of_a_scene_are_its_masks_on_a_grid():
    some = scenes(3, 6, count=2)
    for scene, found in zip(some, lessons.find_things(some, 16, 16), strict=True):
        whole = ~masks(scene)[scene.background]
        assert found.sum() == pytest.approx(whole.sum() / 16, rel=0.3)
        assert whole[found.repeat(4, 0).repeat(4, 1)].mean() > 0.7


# --- the script


@pytest.mark.arithmetic
def test_it_saves_sheets_film_and_scores(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(features, "TIMES", (900, 600, 400, 20))
    call(features.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_unet_features")
    assert spread(folder / "figure.png") > 10 and spread(folder / "colours.png") > 10
    assert Film.open(folder).finished and "unet.up_blocks.1" in Film.open(folder).names
    saved = load_file(folder / "tensors.safetensors")
    assert saved["up_blocks.1, colours"].shape == (2, 16, 16, 3)
    decoder, latent = saved["up_blocks.1"], saved[lessons.LATENT]
    assert latent.shape == (4, 4)
    assert decoder[-2:].mean() > latent[-2:].mean(), "the decoder knows less than the latent"
    report, _ = read_report(folder / "report.json")
    assert report.numbers["up_blocks.1: t = 20"].value == pytest.approx(decoder[-1].mean())
    assert "above chance; when nobody looks, the run's end" in report.control.outcome
    assert capfd.readouterr().err == ""


def scores_of(iou: float, latent: float, shuffled: float) -> Scores:
    """One block and the latent, whose IoU rises with time; eight scenes."""
    names, times = ["unet.up_blocks.1", lessons.LATENT], len(features.TIMES)
    scenes_off = np.linspace(0.9, 1.1, 8)
    things = {
        name: np.linspace(0, top, times)[:, None] * scenes_off
        for name, top in zip(names, (iou, latent), strict=True)
    }
    nonsense = {name: np.full((times, 8), shuffled) for name in names}
    empty = np.zeros((64, 64, 3), np.uint8), np.zeros((4, 4), bool), np.zeros((times, 4, 4), bool)
    bounds, chance = dict.fromkeys(names, 1.0), np.full(8, 0.15)
    return Scores(features.TIMES, things, nonsense, bounds, chance, names[0], *empty)


@pytest.mark.parametrize(("shuffled", "off"), [(0.15, 1e-3), (0.25, 0.0)])
def test_the_control_fails_where_nonsense_teaches_or_looking_changes(
    shuffled, off, tmp_path, monkeypatch
):
    film_features = linear_probe.film_features

    def looked(*given):
        return film_features(*given)[0], Held(off, 1e-6)

    monkeypatch.setattr(linear_probe, "film_features", looked)
    monkeypatch.setattr(features, "probe_scenes", lambda *_: scores_of(0.8, 0.3, shuffled))
    with pytest.raises(SystemExit, match="control failed: looking changed the picture, or a probe"):
        call(features.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_of_another_world_the_run_alone_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SIDE", 512)
    call(features.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    report, _ = read_report(only(tmp_path / "test_unet_features") / "report.json")
    assert report.finding.startswith("The first to reach a cosine of 0.9")
    assert [row["block"] for row in report.table][-1] == "up_blocks.1"


def test_the_finding_is_told_by_the_numbers():
    told = features.find(scores_of(0.8, 0.3, 0.1))
    assert "probe on up_blocks.1 finds things with an IoU of 0.80" in told
    assert told.endswith("at t = 20, beyond one on the latent, 0.300.")
    assert "not clearly beyond" in features.find(scores_of(0.8, 0.8, 0.1))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--number", "7"], "--number 7 is not from 8 to 512"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--steps", "0"], "--steps 0 is not from 1 to 1000"),
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(features.main, words, told, tmp_path / "out", monkeypatch, capfd)
