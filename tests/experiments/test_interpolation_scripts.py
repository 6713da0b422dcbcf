"""The scripts on interpolation: ways and numbers planted, their controls, the smallest runs."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import text_image_interpolation as prompts
from experiments import text_latent_interpolation as seeds
from experiments.figures import interpolation as figures
from phantom.world import Scene, Thing, render
from stable_diffusion_tf.images import to_model
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray.measure import distance
from xray.methods import interpolation
from xray.methods.interpolation import WAYS, measure_along
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

SHARES = interpolation.shares_of(5)


def noises() -> tuple[np.ndarray, np.ndarray]:
    """Two of (2, 8, 8, 4), float32."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((2, 8, 8, 4)).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("walk", [interpolation.walk, interpolation.walk_tokens])
def test_a_way_has_its_ends_bit_for_bit(way, walk):
    a, b = (noise.reshape(8, -1) for noise in noises())
    points = walk(a, b, WAYS[way], SHARES)
    assert points.shape == (5, *a.shape) and points.dtype == np.float32
    np.testing.assert_array_equal(points[[0, -1]], [a, b])


def test_each_token_keeps_the_length_of_its_own_vector_on_the_sphere():
    a, b = np.diag([1.0, 2.0, 3.0]), np.roll(np.diag([1.0, 2.0, 3.0]), 1, axis=1)
    lengths = np.linalg.norm(interpolation.walk_tokens(a, b, WAYS["slerp"], SHARES), axis=2)
    assert lengths == pytest.approx(np.tile([1.0, 2.0, 3.0], (5, 1)))
    short = np.linalg.norm(interpolation.walk_tokens(a, b, WAYS["lerp"], SHARES), axis=2)
    assert short[2] == pytest.approx(np.array([1, 2, 3]) / 2**0.5)


def test_the_norm_shrinks_on_the_straight_way_only():
    a, b = noises()
    left = {w: seeds.norms(interpolation.walk(a, b, way, SHARES)) for w, way in WAYS.items()}
    assert left["lerp"][2] == pytest.approx(0.5**0.5, abs=0.06)
    assert left["slerp"][2] == pytest.approx(1, abs=0.06)


def test_what_is_kept_is_told_as_a_share_of_the_ends():
    values = np.array([[2.0, 4.0], [1.0, 3.0], [4.0, 8.0]])
    assert seeds.to_ends(values)[1].tolist() == [1 / 3, 0.5]


def test_a_distance_is_a_root_mean_square_item_by_item():
    a = np.zeros((2, 2, 2))
    b = np.stack([np.full((2, 2), 3.0), np.array([[2.0, 0], [0, 0]])])
    assert distance(a, b).tolist() == [3, 1]


def test_distances_along_a_way_are_from_both_ends_and_the_last():
    x = np.array([0.0, 1.0, 5.0, 6.0])[:, None, None] * np.ones((1, 2, 3))
    along = measure_along(x)
    assert along.from_a[:, 0].tolist() == [0, 1, 5, 6]
    assert along.from_b[:, 1].tolist() == [6, 5, 1, 0]
    assert np.isnan(along.from_last[0]).all() and along.from_last[1:, 0].tolist() == [1, 4, 1]
    told = figures.steps_of({"lerp": along})
    assert told["lerp: step 2"].value == pytest.approx(100 * 4 / 6)
    assert told["lerp: make most of it"].value == 3


def test_the_steps_needed_are_the_largest():
    parts = np.array([[0.5, 0.01], [0.1, 0.01], [0.4, 0.98]])
    assert interpolation.count_needed(parts).tolist() == [2, 1]
    assert interpolation.count_needed(np.full((10, 1), 0.1)).tolist() == [9]


STEPS = {  # how large each step of eight ways is → what is told
    "all in one": (
        lambda rng: np.array([1, 1, 9, 1, 1])[:, None] * np.ones(8),
        "pictures switch in one",
    ),
    "each its own": (
        lambda rng: rng.permuted(np.tile([0.1, 0.1, 9, 9, 0.1], (8, 1)), axis=1).T,
        "each picture jumps: 2 steps [2, 2] of 5 make 90 % of its change, of random steps 3.",
    ),
    "even": (lambda rng: np.ones((5, 8)), "no picture clearly jumps: 5 steps [5, 5] of 5"),
}


@pytest.mark.parametrize(("steps", "told"), STEPS.values(), ids=[*STEPS])
def test_a_switch_is_told_from_chance(steps, told):
    made = steps(np.random.default_rng(3))
    far = np.cumsum(np.vstack([np.zeros(8), made]), axis=0)[..., None, None] * np.ones((1, 1, 2, 3))
    found = figures.tell_steps("Between two prompts", dict.fromkeys(WAYS, measure_along(far)))
    assert told in found and len(found.split()) <= 25


def test_random_steps_are_those_of_a_broken_stick():
    """Of two pieces, uniform: the larger is below nine tenths in four breaks of five."""
    assert interpolation.needed_of_random_steps(2, 4).mean() == pytest.approx(1.8, abs=0.01)
    x = np.array([0.0, 1.0, 5.0])[:, None, None] * np.ones((1, 2, 3))
    panel = figures.jumps_panel({"lerp": measure_along(x)})
    assert panel.usual.tolist() == pytest.approx([75, 100])  # the larger is 3/4 on average
    assert panel.curves["lerp"][:, 0].tolist() == pytest.approx([80, 100])


def test_whose_picture_it_is_is_counted():
    scenes = (("rabbit", "purple", (130, 70, 190)), ("burger", "green", (46, 160, 67)))
    images = [render(Scene(b, c, (Thing(name, "", 16, 16),), "")) for name, b, c in scenes]
    all_three = to_model(np.stack([*images, np.full_like(images[0], 128)]), 1)
    asked = prompts.Options()
    told = prompts.judge(all_three, asked.prompt, asked.other)
    assert {who: count.short for who, count in told.items()} == {
        "A": "1 of 3",
        "B": "1 of 3",
        "neither": "1 of 3",
    }
    assert prompts.judge(all_three[:, ::2, ::2], asked.prompt, asked.other) == {}


SMALL = ["--points", 3, "--pictures", 2, "--steps", 1]
SCRIPTS = {"text_image_interpolation": prompts, "text_latent_interpolation": seeds}


@pytest.mark.arithmetic
@pytest.mark.parametrize("name", SCRIPTS)
def test_they_save_sheet_and_tensors(name, tmp_path, monkeypatch, capfd):
    call(SCRIPTS[name].main, *SMALL, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / name)
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    straight, sphere = saved["lerp.latents"], saved["slerp.latents"]
    assert straight.shape == sphere.shape == (3, 2, 16, 16, 4)
    np.testing.assert_array_equal(straight[[0, -1]], sphere[[0, -1]])
    assert not np.array_equal(straight[1], sphere[1])
    report, _ = read_report(folder / "report.json")
    assert report.control.passed and len(report.table) == 6
    assert report.table[0]["from A"].value == 0 < report.table[0]["from B"].value
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("main", [prompts.main, seeds.main])
def test_the_control_fails_where_a_way_does_not_arrive(main, tmp_path, monkeypatch):
    monkeypatch.setitem(WAYS, "lerp", lambda a, b, share: a + 0.9 * share * (b - a))
    with pytest.raises(SystemExit, match="control failed"):
        call(main, *SMALL, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("main", "words", "told"),
    [
        (prompts.main, ["--points", "2"], "--points 2 is not from 3 to 33"),
        (prompts.main, ["a cat", "A  cat"], "both prompts are the same"),
        (prompts.main, ["--weights", "nothing-such"], "not in the catalogue"),
        (seeds.main, ["--points", "99"], "--points 99 is not from 3 to 33"),
        (seeds.main, ["--seed", "3", "--other", "3"], "both seeds are 3; try --other 4"),
        (seeds.main, ["--other", "-2"], "seed of -2 is negative"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    main, words, told, tmp_path, monkeypatch, capfd
):
    check_refusal(main, words, told, tmp_path / "out", monkeypatch, capfd)
