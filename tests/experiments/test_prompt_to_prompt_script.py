"""The script on prompt-to-prompt: tokens, edits and numbers planted, its control, one run."""

import numpy as np
import pytest
from keras import ops
from safetensors.numpy import load_file

from experiments import text_prompt_to_prompt as script_p2p
from phantom.prompts import mask_between
from phantom.world import Scene, Thing, render
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import Tokenizer
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray.measure import Estimate
from xray.methods import prompt_to_prompt
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

TOKENS = Tokenizer()


def aligned(source: str, target: str) -> list[int | None]:
    """Where each token up to ten takes its attention from."""
    place, known = prompt_to_prompt.align(*TOKENS([source, target]))
    assert place.shape == known.shape == (77,) and place.max() == 76
    return [int(p) if k else None for p, k in zip(place, known, strict=True)][:10]


@pytest.mark.parametrize(
    ("source", "target", "places"),
    [
        ("a cat on red", "a cat on red", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("a cat on red", "a dog on red", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("a cat on red", "a big cat on red", [0, 1, None, 2, 3, 4, 5, 7, 8, 9]),
        ("a big cat on red", "a cat on red", [0, 1, 3, 4, 5, 6, 7, 7, 8, 9]),
        ("a cat on red", "a fire truck on red", [0, 1, 2, 2, 3, 4, 5, 7, 8, 9]),
        ("a fire truck on red", "a cat on red", [0, 1, 2, 4, 5, 6, 7, 7, 8, 9]),
    ],
)
def test_tokens_find_their_partners(source, target, places):
    assert aligned(source, target) == places


def test_the_replaced_tokens_are_told():
    ids = TOKENS(["a fire truck on red", "a cat on red", "a big cat on red"])
    assert prompt_to_prompt.replaced(ids[0], ids[1]) == [2, 3]
    assert prompt_to_prompt.replaced(ids[1], ids[0]) == [2]
    with pytest.raises(UsageError, match="no word is replaced"):
        prompt_to_prompt.replaced(ids[1], ids[2])
    both = prompt_to_prompt.replaced_words(TOKENS, "a fire truck on red", "a cat on red")
    assert both == ("fire truck", "cat")


def attention(rows: int = 3, tokens: int = 5) -> np.ndarray:
    """(2·rows, heads, h·w, tokens)"""
    return np.random.default_rng(0).random((2 * rows, 2, 4, tokens)).astype(np.float32)


def edited(edit, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both halves after an edit; the first must be as it was."""
    uncond, cond = np.split(ops.convert_to_numpy(edit(ops.convert_to_tensor(probs))), 2)
    np.testing.assert_array_equal(uncond, probs[: len(uncond)])
    return cond, probs[len(uncond) :]


def test_targets_take_over_what_is_known_of_the_source():
    place = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 2, 1, 3, 3]])
    known = np.array([[False] * 5, [True] * 5, [True, True, False, True, True]])
    new, old = edited(prompt_to_prompt.inject_cross(place, known), attention())
    np.testing.assert_array_equal(new[0], old[0])
    np.testing.assert_array_equal(new[1], old[0])
    np.testing.assert_array_equal(new[2, ..., [0, 1, 3, 4]], old[0, ..., [0, 2, 3, 3]])
    np.testing.assert_array_equal(new[2, ..., 2], old[2, ..., 2])


def test_self_attention_is_taken_over_where_it_is_said():
    new, old = edited(prompt_to_prompt.inject_self(np.array([False, False, True])), attention(3, 4))
    np.testing.assert_array_equal(new, old[[0, 1, 0]])


def test_a_weight_multiplies_one_token_of_one_row():
    weights = np.ones((3, 5), np.float32)
    weights[2, 1] = 4
    new, old = edited(prompt_to_prompt.reweight(weights), attention())
    old[2, ..., 1] *= 4
    np.testing.assert_array_equal(new, old)


def test_change_is_told_outside_and_inside_of_the_mask():
    images = np.zeros((3, 1, 4, 4, 3))
    masks = np.zeros((1, 4, 4), bool)
    masks[:, :2] = True
    images[1, :, :2], images[2, :, 2:] = 1, 0.5  # 2 is from black to white
    moved = prompt_to_prompt.change(images, masks)
    assert moved["inside"].ravel().tolist() == [0, 50, 0]
    assert moved["outside"].ravel().tolist() == [0, 0, 25]


def test_the_mask_is_the_square_of_the_thing_or_all_but_the_things():
    things = Thing("rabbit", "", 4, 4), Thing("strawberry", "small", 38, 38)
    images = np.stack([render(Scene("purple", (130, 70, 190), things[i:], "")) for i in (0, 1)])
    heat = np.zeros((2, 64, 64), bool)
    heat[:, 5] = True
    masks = mask_between(images, "a rabbit and a strawberry", "a cat and a strawberry", heat)
    assert masks[0].sum() == 36 * 36 and masks[0, 2:38, 2:38].all()
    np.testing.assert_array_equal(masks[1], heat[1])
    ground = mask_between(images[:1], "a rabbit on purple", "a rabbit on red", heat[:1])
    np.testing.assert_array_equal(ground[0], ~masks[0])
    np.testing.assert_array_equal(
        mask_between(images[:, :32], "a rabbit", "a cat", heat[:, :32]), heat[:, :32]
    )


def test_the_finding_says_where_nothing_is_gained():
    plain, edited = ({"outside": Estimate(x, x - 1, x + 1, 8, "%")} for x in (11.0, 2.5))
    words = ("cat", "dog")
    told = script_p2p.find(words, plain, edited, Estimate(8.5, 7, 10, 8, "%"))
    assert told == (
        "“dog” for “cat” by replace changes the rest of the picture by 2.5 % [1.5, 3.5], less than "
        "without it, 11.0 %."
    )
    level = script_p2p.find(words, plain, edited, Estimate(8.5, -1, 10, 8, "%"))
    assert "not surely less than" in level and len(level.split()) <= 25


SMALL = ["a cat on red", "a dog on red", "a big cat on red", "--pictures", 2, "--steps", 1]


@pytest.mark.arithmetic
def test_it_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(script_p2p.main, *SMALL, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text_prompt_to_prompt")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["latents"].shape == (2, 8, 16, 16, 4)
    assert saved["pictures"].shape == (8, 2, 64, 64, 3)
    assert saved["masks"].shape == (2, 64, 64) and 0 < saved["masks"].mean() < 1
    assert not np.array_equal(saved["latents"][:, 2], saved["latents"][:, 3])
    report, _ = read_report(folder / "report.json")
    assert "“dog” for “cat”" in report.finding and report.control.passed
    assert [row["row"] for row in report.table][-2:] == ["refine", "re-weight × 4"]
    assert capfd.readouterr().err == ""


def test_the_control_fails_where_patching_changes_the_source(tmp_path, monkeypatch):
    planted = np.zeros((2, 8, 16, 16, 4), np.float32), [[], []]
    monkeypatch.setattr(prompt_to_prompt, "draw_rows", lambda *_: planted)
    monkeypatch.setattr(prompt_to_prompt, "mask_of", lambda *_: np.eye(64, dtype=bool))
    with pytest.raises(SystemExit, match="control failed"):
        call(script_p2p.main, *SMALL, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cross-replace-steps", "1.5"], "--cross-replace-steps 1.5 is not from 0 to 1"),
        (["--alike", "0.5"], "--alike is called --self-replace-steps now"),
        (["a cat", "a big cat"], "no word is replaced"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(script_p2p.main, words, told, tmp_path / "out", monkeypatch, capfd)
