"""The script on end and padding: its swaps on planted vectors, its control, the smallest run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import text_padding_and_end as padding
from experiments.text_padding_and_end import SWAPS
from phantom.world import Scene, Thing, render
from stable_diffusion_tf.tokenizer import EOS
from tests.experiments.test_scripts import call, check_refusal, only, spread

pytestmark = pytest.mark.usefixtures("loaded")


def ids(words: int) -> np.ndarray:
    return np.array([49406] + [320] * words + [EOS] * (76 - words))


def vectors(words: int, sign: int) -> dict[str, np.ndarray]:
    """Each vector says where it stands, and by its sign whose it is."""
    return padding.split(sign * np.arange(1.0, 78)[:, None], ids(words))


def test_the_parts_are_where_the_tokens_are():
    parts = vectors(3, 1)
    assert [len(part) for part in parts.values()] == [1, 3, 1, 36, 36]
    assert parts["words"].ravel().tolist() == [2, 3, 4] and parts["end"] == 5


@pytest.mark.parametrize("swap", SWAPS)
def test_a_swap_takes_what_it_says(swap):
    row = padding.compose(vectors(3, 1), vectors(3, -1), SWAPS[swap]).ravel()
    places = dict(zip(padding.PARTS, np.split(np.arange(77), [1, 4, 5, 41]), strict=True))
    taken = np.zeros(77, bool)
    for part in SWAPS[swap]:
        taken[places[part]] = True
    assert np.abs(row).tolist() == [*range(1, 78)]
    np.testing.assert_array_equal(row < 0, taken)


def test_prompts_of_two_lengths_keep_their_words_and_77_vectors():
    short, long = vectors(2, 1), vectors(6, -1)
    longer = padding.compose(short, long, ["words"]).ravel()
    assert longer[:9].tolist() == [1, -2, -3, -4, -5, -6, -7, 4, 5] and len(longer) == 77
    shorter = padding.compose(long, short, ["words"]).ravel()
    assert shorter[:5].tolist() == [-1, 2, 3, -8, -9] and len(shorter) == 77
    assert shorter[-1] == shorter[-5] == -77


def test_the_way_to_b_is_told_by_both_distances():
    a, b = np.zeros((2, 1, 1, 4)), np.ones((2, 1, 1, 4))
    told = padding.lean({"nothing": a, "words": a + 0.25, "B": b})
    assert [told[name].tolist() for name in ("nothing", "words")] == [[0, 0], [0.25, 0.25]]


def test_the_judge_says_whose_thing_and_whose_background():
    prompts = "a rabbit on a purple background", "a burger on a green background"
    colours = {"purple": (130, 70, 190), "green": (46, 160, 67)}
    images = [
        render(Scene(ground, colours[ground], (Thing(thing, "", 16, 16),), ""))
        for thing, ground in (("rabbit", "purple"), ("burger", "purple"), ("burger", "green"))
    ]
    seen = padding.follow(np.stack(images)[:, None], *prompts)
    assert seen["thing"]["A"].ravel().tolist() == [True, False, False]
    assert seen["thing"]["B"].ravel().tolist() == [False, True, True]
    assert seen["background"]["A"].ravel().tolist() == [True, True, False]
    assert "background" not in padding.follow(np.stack(images)[:, None], "a rabbit", prompts[1])
    assert padding.follow(np.zeros((1, 1, 32, 32, 3), np.uint8), *prompts) == {}


def test_no_span_carries_most_where_two_are_level():
    gone = {"words": np.array([0.4, 0.6]), "end": np.array([0.5, 0.5]), "padding": np.zeros(2)}
    assert padding.finding(gone, {}).startswith("No span alone carries most")
    assert padding.finding(gone | {"end": np.array([0.9, 1.0])}, {}).startswith("The end carries")


SMALL = ["a cat", "a big dog", "--pictures", 2, "--steps", 1]


@pytest.mark.arithmetic
def test_it_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(padding.main, *SMALL, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text_padding_and_end")
    assert spread(folder / "swaps.png") > 10
    saved = load_file(folder / "swaps.safetensors")
    assert saved["pictures"].shape == (len(SWAPS), 2, 64, 64, 3)
    assert saved["latents"].shape == (len(SWAPS) + 1, 2, 16, 16, 4)
    assert saved["contexts"].shape[:2] == (len(SWAPS) + 1, 77)
    np.testing.assert_array_equal(saved["latents"][0], saved["latents"][1])
    assert not np.array_equal(saved["latents"][0], saved["latents"][2])
    said, complained = capfd.readouterr()
    assert complained == "" and said.count("bit for bit") == 2
    assert [line.split()[0] for line in said.splitlines()[-4:]] == [
        "finding",
        "control",
        "picture",
        "tensors",
    ]


def test_the_control_fails_where_the_start_is_not_only_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(padding.SWAPS, "start", ("start", "words"))
    with pytest.raises(SystemExit, match="control failed"):
        call(padding.main, *SMALL, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pictures", "1"], "--pictures 1 is not from 2 to 64"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--steps", "0"], "steps must be from 1 to 1000"),
        (["a cat", "A  cat"], "both prompts are the same"),
        (["cat " * 80], "leaves no padding"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(padding.main, words, told, tmp_path / "out", monkeypatch, capfd)
