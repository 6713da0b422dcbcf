"""The script that swaps times and words: its numbers on planted cases, the smallest run."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_time_and_context as swaps
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray.measure import Estimate
from xray.methods import conditioning
from xray.methods.conditioning import KINDS, Conditions, Swap
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

RNG = np.random.default_rng(0)
SMALLEST = ["--steps", 2, "--pictures", 2]
TO_K, TIME = "unet.up_blocks.1.x.attn2.to_k", "unet.mid_block.resnets.0.time_emb_proj"


# --- planted cases


def test_a_wrong_time_is_one_of_the_run_or_a_stride_beyond_it():
    heard = conditioning.shifted_times(np.array([751, 501, 251, 1]), 1, 999)
    np.testing.assert_array_equal(heard["noisier"], [999, 751, 501, 251])
    np.testing.assert_array_equal(heard["cleaner"], [501, 251, 1, 0])
    np.testing.assert_array_equal(heard["words"], heard["itself"])
    assert conditioning.shifted_times(np.array([751, 501, 251, 1]), 2, 999)["noisier"][2] == 751
    assert conditioning.shifted_times(np.array([1]), 1, 999)["noisier"] == [500]


def conditions() -> Conditions:
    """Two pictures in two halves; every value says where it is from."""
    words = (np.arange(4.0).reshape(4, 1, 1) + start for start in (0, 10))
    own, other = ({TO_K: np.broadcast_to(v, (4, 77, 2))} for v in words)
    times = {t: {TIME: np.full((4, 3), float(t))} for t in (700, 500, 300)}
    steps = {"itself": [500, 300], "words": [500, 300], "noisier": [700, 500]}
    return Conditions(own, other, times, {kind: np.array(t) for kind, t in steps.items()})


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
def test_a_row_gets_what_its_swap_says_in_both_halves(swap, step, words, times):
    known = conditions()
    heard = conditioning.mixed(known, [Swap("itself"), swap], step)
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
    told = ["all", "down block 0", "up block 1", "step 1", "step 2"]
    assert [swap.where for swap in listed[:5]] == told


def test_the_finding_names_the_step_that_moves_most():
    table = [
        {"swapped": KINDS[kind], "where": where, "moved": Estimate(far, far - 1, far + 1, 8, "%")}
        for kind in KINDS
        for where, far in (("all", 90.0), ("step 1", 70.0), ("step 2", 30.0))
    ]
    assert swaps.find(table) == (
        "Another prompt in step 1 of 2 alone moves the latent 70.0 % [69.0, 71.0] as far as "
        "another seed would."
    )


# --- the script


@pytest.mark.arithmetic
def test_it_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(swaps.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_time_and_context")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["plain"].shape == (4, 16, 16, 4), "as many again, to tell how far seeds are"
    assert saved["latents"].shape == (24, 2, 16, 16, 4)  # 3 kinds, of 1 + 5 blocks + 2 steps each
    assert saved["pictures"].shape == (25, 2, 64, 64, 3)
    far = conditioning.apart(saved["latents"], saved["plain"][:2]).reshape(3, 8, 2)
    assert (far[:, 0] > 0.01).all(), "what is swapped everywhere moves nothing"
    assert far[0, 4].max() < 1e-4 < far[0, 3].min(), "the block after the middle reads words"
    report, _ = read_report(folder / "report.json")
    share = 100 * far[0, 0].mean() / conditioning.between(saved["plain"])
    assert report.numbers["the other prompt, all"].value == pytest.approx(share, rel=1e-4)
    assert report.control.passed and capfd.readouterr().err == ""


def test_a_glob_says_in_which_blocks_it_is_swapped(sd):
    assert conditioning.find_blocks(sd, "up*") == ["up_blocks.0", "up_blocks.1"]
    assert conditioning.find_blocks(sd, "mid_block") == ["mid_block"]


def test_the_control_fails_where_its_own_conditions_move_the_latent(tmp_path, monkeypatch):
    """The networks are not asked again: what they would say is planted."""
    monkeypatch.setattr(conditioning, "read_conditions", lambda *given: None)
    monkeypatch.setattr(
        conditioning, "swap_all", lambda sd, jobs, noise, *_: noise[[0] * len(jobs)]
    )
    with pytest.raises(SystemExit, match="control failed"):
        call(swaps.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_a_latent_consistency_model_is_refused(tmp_path, monkeypatch, capfd):
    with np.load(GOLDEN) as found:
        oracles.write(tmp_path, oracles.LCM, json.loads(str(found["lcm/names"])))
    words = ["--weights", tmp_path, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit):
        call(swaps.main, *words, monkeypatch=monkeypatch)
    assert "has no ε_uncond; name other weights" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--shift", "0"], "--shift 0 is not from 1 to 100"),
        (["--pictures", "17"], "--pictures 17 is not from 2 to 16"),
        (["--blocks", "mid_blok"], "no block mid_blok; --blocks is a glob of down_blocks.0, "),
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["a cat", "a cat "], "both prompts are the same"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(swaps.main, words, told, tmp_path / "out", monkeypatch, capfd)
