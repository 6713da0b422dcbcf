"""The script that swaps times and words: its numbers on planted cases, the smallest run."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_time_and_context as swaps
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray.methods import conditioning
from xray.methods.conditioning import Ears, Fit, Swap

pytestmark = pytest.mark.usefixtures("loaded")

RNG = np.random.default_rng(0)
SMALLEST = ["--steps", 2, "--pictures", 2, "--batch", 8]
TO_K, TIME = "unet.up_blocks.1.x.attn2.to_k", "unet.mid_block.resnets.0.time_emb_proj"


# --- planted cases


def test_scale_and_offset_are_found_and_what_they_leave():
    base = RNG.normal(size=(4, 6, 6, 3)) * [1, 10, 0.1] + [0, 50, -3]
    fit = conditioning.fit_channels(base, base * [0.5, 1, 2] + [1, -20, 0.3])
    np.testing.assert_allclose(fit.scale, [0.5, 1, 2])
    mean, deviation = base.mean((0, 1, 2)), base.std((0, 1, 2))
    np.testing.assert_allclose(fit.offset, ([-0.5, 0, 1] * mean + [1, -20, 0.3]) / deviation)
    assert fit.explained == pytest.approx(1) and fit.change > 1
    moved = conditioning.fit_channels(
        base, base + RNG.normal(size=base.shape) * base.std((0, 1, 2))
    )
    assert moved.explained < 0.05 and moved.change == pytest.approx(1, abs=0.1)
    dead = conditioning.fit_channels(np.zeros((1, 2, 2, 1)), np.ones((1, 2, 2, 1)))
    assert dead.offset[0] == 1 and dead.explained == 1
    assert np.isnan(conditioning.fit_channels(base, base).explained)


def test_a_wrong_time_is_one_of_the_run_or_a_stride_beyond_it():
    heard = conditioning.heard_times(np.array([751, 501, 251, 1]), 1, 999)
    np.testing.assert_array_equal(heard["noisier"], [999, 751, 501, 251])
    np.testing.assert_array_equal(heard["cleaner"], [501, 251, 1, 0])
    np.testing.assert_array_equal(heard["words"], heard["itself"])
    assert conditioning.heard_times(np.array([751, 501, 251, 1]), 2, 999)["noisier"][2] == 751
    assert conditioning.heard_times(np.array([1]), 1, 999)["noisier"] == [500]


def ears() -> Ears:
    """Two pictures in two halves; every value says where it is from."""
    words = (np.arange(4.0).reshape(4, 1, 1) + start for start in (0, 10))
    own, other = ({TO_K: np.broadcast_to(v, (4, 77, 2))} for v in words)
    times = {t: {TIME: np.full((4, 3), float(t))} for t in (700, 500, 300)}
    steps = {"itself": [500, 300], "words": [500, 300], "noisier": [700, 500]}
    return Ears(own, other, times, {kind: np.array(t) for kind, t in steps.items()})


@pytest.mark.parametrize(
    ("swap", "step", "words", "times"),
    [
        (Swap("itself"), 1, [0, 1, 2, 3], [300, 300, 300, 300]),
        (Swap("words"), 0, [0, 11, 2, 13], [500, 500, 500, 500]),
        (Swap("words", "up_blocks.1"), 1, [0, 11, 2, 13], [300, 300, 300, 300]),
        (Swap("words", "mid_block"), 1, [0, 1, 2, 3], [300, 300, 300, 300]),
        (Swap("noisier"), 0, [0, 1, 2, 3], [500, 700, 500, 700]),
        (Swap("noisier", "mid_block"), 1, [0, 1, 2, 3], [300, 500, 300, 500]),
        (Swap("noisier", "up_blocks.1"), 1, [0, 1, 2, 3], [300, 300, 300, 300]),
        (Swap("noisier", None, 1), 0, [0, 1, 2, 3], [500, 500, 500, 500]),
        (Swap("words", None, 1), 1, [0, 11, 2, 13], [300, 300, 300, 300]),
    ],
)
def test_a_row_hears_what_its_swap_says_in_both_halves(swap, step, words, times):
    known = ears()
    heard = conditioning.hear(known, [Swap("itself"), swap], step)
    np.testing.assert_array_equal(heard[TO_K][:, 5, 1], words)
    np.testing.assert_array_equal(heard[TIME][:, 2], times)
    np.testing.assert_array_equal(known.own[TO_K][:, 0, 0], [0, 1, 2, 3])


def test_distances_between_all_pairs():
    ends = np.zeros((3, 4, 4, 2))
    ends[1], ends[2] = 1, 3
    assert conditioning.between(ends) == pytest.approx((1 + 3 + 2) / 3)
    np.testing.assert_allclose(conditioning.apart(np.ones((2, 3, 4, 4, 2)), ends), [[1, 0, 2]] * 2)


def test_swaps_are_sorted_by_kind_place_and_step():
    blocks = ["down_blocks.0", "up_blocks.1"]
    listed = conditioning.list_swaps(blocks, 2)
    assert len(listed) == 15 and listed[7] == Swap("noisier", "up_blocks.1")
    moved = swaps.sort_out(np.arange(30.0).reshape(15, 2), blocks, 2)
    assert moved.places == ["all", *blocks]
    np.testing.assert_array_equal(moved.by_place["a noisier time"], [[10, 11], [12, 13], [14, 15]])
    np.testing.assert_array_equal(moved.by_step["a cleaner time"], [[26, 27], [28, 29]])


def test_the_finding_is_told_by_the_numbers():
    far = np.arange(15.0)[:, None] + np.array([-1, 1])
    far[1] = 40
    moved = swaps.sort_out(far, ["down_blocks.0", "up_blocks.1"], 2)
    some = np.zeros(3)
    kinds = dict(zip(conditioning.KINDS.values(), (0.7, 0.5, 0.4), strict=True))
    fits = {
        f"up_blocks.{i}": {kind: Fit(some, some, share, i) for kind, share in kinds.items()}
        for i in (0, 1)
    }
    title = swaps.finding(moved, fits, "a car")
    assert "Hearing “a car” moves the latent by 0 ± 1 %" in title
    assert "in down_blocks.0 alone by 40 ± 0 %, in step 2 alone by 4 ± 1 %" in title
    assert "noisier step by 5 ± 1 %, of a cleaner by 10 ± 1 %" in title
    assert "70 % of what the words do to up_blocks.1, and 50 and 40 %" in title


def test_pictures_of_no_phantom_are_not_judged():
    assert swaps.judged(np.zeros((2, 32, 32, 3), np.uint8), ("a cat", "a dog")) == ""


# --- the script


@pytest.mark.arithmetic
def test_it_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(swaps.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_time_and_context")
    assert spread(folder / "swaps.png") > 10
    saved = load_file(folder / "swaps.safetensors")
    assert saved["plain"].shape == (8, 16, 16, 4)
    assert saved["latents"].shape == (30, 2, 16, 16, 4)  # 3 kinds, of 1 + 7 blocks + 2 steps each
    assert saved["pictures"].shape == (31, 2, 64, 64, 3)
    far = conditioning.apart(saved["latents"], saved["plain"][:2]).reshape(3, 10, 2)
    assert (far[:, 0] > 0.01).all(), "what is heard everywhere moves nothing"
    assert far[:, 4].max() < 0.05 * far[0, 0].min(), "the dead mid block moves something"
    said, complained = capfd.readouterr()
    assert complained == "" and "put in by hand: " in said
    assert [line.split()[0] for line in said.splitlines()[-4:]] == [
        "finding",
        "control",
        "picture",
        "tensors",
    ]


def test_the_control_fails_where_hearing_itself_moves_the_latent(tmp_path, monkeypatch, capfd):
    """The networks are not asked again: what they would say is planted."""
    values = conditioning.apart(np.ones((8, 16, 16, 4)), np.zeros((8, 16, 16, 4)))
    fit = Fit(values, values, 0.5, 1.0)
    fits = {"up_blocks.1": dict.fromkeys(conditioning.KINDS.values(), fit)}
    monkeypatch.setattr(conditioning, "fit_decoder", lambda *given: fits)
    monkeypatch.setattr(conditioning, "listen", lambda *given: None)
    monkeypatch.setattr(
        conditioning, "swap_all", lambda sd, jobs, noise, *_: noise[[0] * len(jobs)]
    )
    with pytest.raises(SystemExit, match="control failed"):
        call(swaps.main, *SMALLEST[:-1], 2, "--out", tmp_path, monkeypatch=monkeypatch)
    assert "finding" in capfd.readouterr().out


def test_a_latent_consistency_model_is_refused(tmp_path, monkeypatch, capfd):
    with np.load(GOLDEN) as found:
        oracles.write(tmp_path, oracles.LCM, json.loads(str(found["lcm/names"])))
    words = ["--weights", tmp_path, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit):
        call(swaps.main, *words, monkeypatch=monkeypatch)
    assert "new noise in each step; name other weights" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--shift", "0"], "a shift of 0 steps is no other time"),
        (["--pictures", "1"], "1 pictures have no standard error"),
        (["--batch", "2"], "a batch of 2 is less than the 3 pictures"),
        (["--steps", "0"], "steps must be from 1 to 1000"),
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["a cat", "--other", "a cat "], "alike; try another --other"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(swaps.main, words, told, tmp_path / "out", monkeypatch, capfd)
