"""The script on the text encoder: its numbers on planted vectors, its control, the smallest run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_text_encoder as encoder
from experiments import token_rows
from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.tokenizer import BOS, EOS
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray import measure
from xray.methods.causal_mask import after, farthest, moved
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

SMALLEST = ["a cat on pink"]
IDS = np.array([BOS, 5, 6, 7, EOS, EOS, EOS], np.int32)


def test_a_prompt_grows_and_each_token_is_changed_once():
    np.testing.assert_array_equal(
        token_rows.grow(IDS, 3)[:, :5],
        [[BOS, EOS, EOS, EOS, EOS], [BOS, 5, EOS, EOS, EOS], [BOS, 5, 6, EOS, EOS], IDS[:5]],
    )
    before = IDS.copy()
    rows = token_rows.change(IDS, 3, np.array([5, 6, 7, 8]), np.random.default_rng(0))
    np.testing.assert_array_equal(np.argwhere(rows != IDS), [[0, 1], [1, 2], [2, 3]])
    assert rows.dtype == np.int32 and set(rows[rows != IDS]) <= {5, 6, 7, 8}
    np.testing.assert_array_equal(IDS, before)


def test_random_prompts_are_of_known_tokens_between_start_and_end():
    rows = token_rows.strange(4, 77, np.array([5, 9]), np.random.default_rng(0))
    assert rows.shape == (4, 77) and set(rows[:, 1:-1].ravel()) == {5, 9}
    assert (rows[:, 0] == BOS).all() and (rows[:, -1] == EOS).all()


def test_moves_are_told_apart_by_where_they_are():
    moves = np.array([[0, 9, 1, 3], [2, 0, 9, 5.0]])
    np.testing.assert_array_equal(farthest(moves, -1), [0, 2])
    np.testing.assert_array_equal(farthest(moves, 1), [3, 5])
    np.testing.assert_array_equal(after(moves), [2, 5])
    context, others = np.array([[[3.0, 4], [0, 1]]]), np.array([[[3.0, 4], [0, 3]]])
    np.testing.assert_array_equal(moved(context, others), [[0, 0.4]])


def test_cosines_of_all_pairs():
    vectors = np.array([[1, 0], [1, 1], [-1, 0.0]])
    half = 0.5**0.5
    np.testing.assert_allclose(
        measure.cosines(vectors), [[1, half, -1], [half, 1, -half], [-1, -half, 1]]
    )


@pytest.mark.arithmetic
def test_it_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(encoder.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_text_encoder")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["ids"].shape == (77,) and saved["context"].shape == (1, 77, 128)
    assert saved["grown"].shape == (5, 77, 128) and saved["changed"].shape == (8 * 4, 77, 128)
    np.testing.assert_array_equal(saved["grown"][-1], saved["context"][0])
    assert (saved["moves"][3, :4] == 0).all() and (saved["moves"][3, 4:] > 0).all()
    report, _ = read_report(folder / "report.json")
    assert report.finding.endswith("those before it by nothing.") and report.control.passed
    assert report.table[3]["changed, it moves, %"] == pytest.approx(100 * saved["moves"][3, 4])
    assert capfd.readouterr().err == ""


BREAKS = {  # what becomes of the encoder → what is told
    "reversed": (
        lambda encode, ids: encode(ids[:, ::-1])[:, ::-1],
        "a vector moved with a token after it",
    ),
    "deaf": (lambda encode, ids: np.ones((*ids.shape, 8)), "none moved with a token before it"),
}


@pytest.mark.parametrize(("broken", "told"), BREAKS.values(), ids=[*BREAKS])
def test_the_control_fails_where_the_order_is_not_causal(broken, told, tmp_path, monkeypatch):
    usual = StableDiffusion.function
    monkeypatch.setattr(
        StableDiffusion, "function", lambda sd, part: lambda ids: broken(usual(sd, part), ids)
    )
    with pytest.raises(SystemExit, match=f"control failed: .*{told}"):
        call(encoder.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([""], "no word to encode; try 'a cat'"),
        (["a cat", "--seed", "-1"], "seed of -1 is negative"),
        (["a cat", "--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(encoder.main, words, told, tmp_path / "out", monkeypatch, capfd)
