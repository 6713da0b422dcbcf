"""The script on the UNet's features: its probes on planted features, the smallest run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_unet_features as features
from experiments.figures import unet_features as figures
from experiments.figures.unet_features import Layout
from phantom import lessons
from phantom.world import masks
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray.film import Film
from xray.methods import linear_probe
from xray.methods.linear_probe import Lesson, Scores
from xray.rounding import Held

pytestmark = pytest.mark.usefixtures("loaded")

RNG = np.random.default_rng(0)
SMALLEST = ["--steps", 2, "--number", 8]


def lesson(n: int = 12) -> Lesson:
    """A thing to the left and one to the right, each 2 × 3 cells somewhere in its half."""
    left, right = np.zeros((2, n, 8, 8), bool)
    for mask, first in ((left, 0), (right, 4)):
        for one, row in zip(mask, RNG.integers(0, 6, n), strict=True):
            one[row : row + 2, first : first + 3] = True
    return Lesson(left | right, left, right)


def planted(known: Lesson) -> np.ndarray:
    """(n, h, w, 5): a channel that holds the things, one that holds the left less the right one,
    both mixed, large and noisy, and noise."""
    clean = np.stack([known.things, 1.0 * known.left - known.right], axis=-1)
    noise = RNG.normal(size=(*known.things.shape, 5))
    noise[..., :2] *= 0.05
    mixed = np.array([[30, 10, 0, 0, 0], [20, -15, 0, 0, 0]])
    return clean @ mixed + noise * [30, 20, 1, 1, 1] + 7


# --- planted cases


def test_probes_find_what_is_in_the_features_of_other_pictures():
    known = lesson()
    things, sides, shuffled = linear_probe.examine(planted(known), known, 8, RNG)
    assert things.shape == sides.shape == shuffled.shape == (4,)
    assert (things > 0.95).all() and (sides > 0.95).all() and (shuffled < 0.5).all()


def test_probes_of_noise_are_at_chance():
    known = lesson(40)
    noise = RNG.normal(size=(40, 8, 8, 5))
    things, sides, shuffled = linear_probe.examine(noise, known, 30, RNG)
    assert shuffled.mean() < known.things.mean() + features.SLACK
    assert things.mean() == pytest.approx(known.things.mean(), abs=0.06)
    assert sides.mean() == pytest.approx(0.5, abs=0.1)


def test_a_channel_without_variance_does_no_harm():
    known = lesson()
    dead = planted(known)
    dead[..., 3] = 5.0
    assert (linear_probe.examine(dead, known, 8, RNG)[0] > 0.95).all()


def test_place_alone_tells_left_from_right():
    known = lesson()
    place = np.broadcast_to(linear_probe.places(8, 8), (12, 8, 8, 5))
    _, sides, _ = linear_probe.examine(place, known, 8, RNG)
    assert (sides == 1).all()


def test_a_coarse_grid_bounds_the_iou():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :2, :2] = True
    assert linear_probe.ceiling(mask, 2, 2) == 1 == linear_probe.ceiling(mask, 4, 4)
    assert linear_probe.ceiling(mask, 1, 1) == pytest.approx(4 / 16)
    mask[0, 0, 2] = True  # a quarter of its cell: better left out
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


def test_the_left_thing_of_a_scene_is_the_first():
    some = lessons.side_by_side(3, 6)
    known = lessons.learn_masks(some, 16, 16)
    columns = np.arange(16)
    for scene, left, right in zip(some, known.left, known.right, strict=True):
        assert (left.sum(0) @ columns) / left.sum() < (right.sum(0) @ columns) / right.sum()
        assert scene.things[0].name in scene.caption and not (left & right).any()
        whole = masks(scene)[scene.things[0].name]
        assert left.sum() == pytest.approx(whole.sum() / 16, rel=0.3)


# --- the script


@pytest.mark.arithmetic
def test_it_saves_sheet_film_and_scores(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(features, "TIMES", (900, 600, 400, 20))
    call(features.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_unet_features")
    assert spread(folder / "features.png") > 10
    assert Film.open(folder).finished and "unet.up_blocks.1" in Film.open(folder).names
    saved = load_file(folder / "features.safetensors")
    assert saved["unet.up_blocks.1.colours"].shape == (2, 16, 16, 3)
    assert saved["unet.mid_block.likeness"].shape == (2,)
    things = {name: saved[f"{name}.things"] for name in ("unet.up_blocks.2", lessons.LATENT)}
    assert things[lessons.LATENT].shape == (4, 4)
    late = [rows[-2:].mean() for rows in things.values()]
    assert late[0] > late[1], "the decoder knows less than the latent"
    said, complained = capfd.readouterr()
    assert complained == "" and "control  unwatched: " in said and "; probes of" in said
    assert [line.split()[0] for line in said.splitlines()[-5:]] == [
        "finding",
        "control",
        "picture",
        "tensors",
        "film",
    ]


def scores_of(iou: float, shuffled: float) -> Scores:
    names = ["unet.up_blocks.1", lessons.LATENT, lessons.PLACE]
    times = len(features.TIMES)
    rise = np.linspace(0, iou, times)[:, None] * [0.9, 1.1]
    rows = {name: rise for name in names}
    nonsense = {name: np.full((times, 2), shuffled) for name in names}
    empty = np.zeros((64, 64, 3), np.uint8), np.zeros((4, 4), bool), np.zeros((times, 4, 4), bool)
    chance = np.array([0.1, 0.2])
    return Scores(
        features.TIMES, rows, rows, nonsense, dict.fromkeys(names, 1.0), chance, names[0], *empty
    )


LAYOUT = Layout(
    np.arange(2),
    np.zeros((2, 32, 32, 3), np.uint8),
    {"unet.up_blocks.1": np.zeros((2, 4, 4, 3))},
    {"unet.up_blocks.1": np.array([0.2, 0.95]), "unet.up_blocks.2": np.array([0.2, 1.0])},
)


def test_the_control_fails_where_nonsense_teaches_or_looking_changes():
    features.check(Held(0, 1e-6), scores_of(0.8, 0.19))
    with pytest.raises(SystemExit, match="shuffled masks finds the things"):
        features.check(Held(2e-6, 1e-6), scores_of(0.8, 0.3))
    with pytest.raises(SystemExit, match="looking changed the picture"):
        features.check(Held(1e-3, 1e-6), None)


def test_pictures_of_no_phantom_are_shown_without_probes():
    title = features.finding(LAYOUT, None)
    assert title.startswith("the features of unet.up_blocks.1 are the first")
    assert title.endswith("in step 2 of 2") and features.tell_shuffled(None) == ""
    figure = figures.features_sheet(LAYOUT, None, title)
    assert len(figure.axes) == 4 and all(axes.images for axes in figure.axes)
    assert next(iter(features.in_arrays(LAYOUT, None))) == "unet.up_blocks.1.colours"


def test_the_finding_is_told_by_the_numbers():
    title = features.finding(LAYOUT, scores_of(0.8, 0.1))
    assert "up_blocks.1 knows where things are" in title
    assert "IoU of 0.80 ± 0.08 at t = 20" in title and "90 % of that is there from t = 20" in title


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--number", "7"], "--number 7 is not from 8 to 512"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--steps", "0"], "steps must be from 1 to 1000"),
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(features.main, words, told, tmp_path / "out", monkeypatch, capfd)
