"""The script on the text encoder's layers: its numbers on planted cases, its control, a run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import text_layers as layers
from phantom.world import render, scenes
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray import rounding
from xray.methods import text_layers
from xray.probe import Probe, capture

pytestmark = pytest.mark.usefixtures("loaded")

TEXTS = ["a cat on pink", "a tree"]


@pytest.mark.parametrize(
    ("shares", "onset"),
    [
        ([0, 0.2, 0.5, 0.8], 2),
        ([0.9, 0.8, 0.9, 1], 0),
        ([0.9, 0.2, 0.9, 1], 2),
        ([0, 0, 0, 1], 3),
        ([0.5, 0.9, 0, 0], None),
    ],
)
def test_a_thing_appears_where_it_stays_half_as_often_as_at_last(shares, onset):
    assert text_layers.find_onset(np.array(shares)) == onset


def test_likeness_is_the_cosine_with_the_last():
    contexts = np.array([[[[3.0, 0]], [[0, 1]]], [[[1, 0]], [[1, 0]]], [[[2, 0]], [[1, 1]]]])
    half = 0.5**0.5
    np.testing.assert_allclose(text_layers.likeness(contexts), [[1, half], [1, half], [1, 1]])


@pytest.mark.arithmetic
def test_contexts_are_those_of_the_states_that_probes_read(sd):
    """A layer's state through the final norm is the context with the later layers silenced; with
    none silenced it is the model's own."""
    contexts = text_layers.from_layers(sd, TEXTS)
    network = sd.network("text_encoder")
    parts = ["embeddings", *(f"encoder.layers.{i}" for i in range(3))]
    names = [f"text_encoder.text_model.{part}" for part in parts]
    _, states = capture(network, sd.tokenize(TEXTS), [Probe(names)])
    for name, context in zip(names, contexts, strict=True):
        normed = np.asarray(network.text_model.final_layer_norm(states[name]))
        np.testing.assert_allclose(context, normed, atol=1e-5)
    alike = sd.encode_text(TEXTS * 4).reshape(contexts.shape)
    assert rounding.hold(contexts[-1], alike[-1], alike).passed
    assert np.abs(contexts[-1] - contexts[-2]).max() > 0.01


def test_each_context_is_drawn_from_each_noise(monkeypatch):
    sums = lambda sd, contexts, noise, run: contexts[..., None] + noise  # noqa: E731
    monkeypatch.setattr(text_layers, "paint", sums)
    contexts, noise = np.reshape([10.0, 20, 30], (3, 1, 1)), np.reshape([0.0, 1], (2, 1, 1, 1))
    images = text_layers.paint_each(None, contexts, noise, {})
    np.testing.assert_array_equal(images.squeeze(), [[10, 11], [20, 21], [30, 31]])


def test_pictures_are_judged_by_what_their_prompt_names():
    drawn = [next(s for s in scenes(seed, 20, count=1) if s.things[0].size) for seed in (0, 1)]
    prompts = [f"a {s.things[0].name} on a {s.background} background" for s in drawn]
    images = np.stack([render(s) for s in drawn])[None, :, None]
    np.testing.assert_array_equal(layers.judge_all(images, prompts), [[[True], [True]]])
    np.testing.assert_array_equal(layers.judge_all(images, prompts[::-1]), [[[False], [False]]])
    assert layers.judge_all(images[..., ::2, ::2, :], prompts) is None
    assert layers.judge_all(images, ["a dream", prompts[0]]) is None


def test_the_finding_is_chosen_by_the_numbers():
    alike = np.array([[0.1], [0.5], [1.0]])
    names = ["embeddings", "layer 1", "layer 2"]
    right = np.array([[[0, 0]], [[1, 0]], [[1, 1]]], bool)
    said = layers.finding(names, alike, right)
    assert said.startswith("the thing appears with layer 1: 50 % of the pictures")
    assert "0 % from the embeddings alone, 100 % from the last" in said
    assert "before the first layer" in layers.finding(names, alike, right[[2, 1, 2]])
    assert "in no layer" in layers.finding(names, alike, right[[2, 1, 0]])
    assert "0.10 at the embeddings and 0.50 one layer before" in layers.finding(names, alike, None)


@pytest.mark.arithmetic
def test_it_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    words = [*TEXTS, "--pictures", 1, "--steps", 1]
    call(layers.main, *words, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text_layers")
    assert spread(folder / "layers.png") > 10
    saved = load_file(folder / "layers.safetensors")
    assert saved["contexts"].shape == (4, 2, 77, 128)
    assert saved["pictures"].shape == (4, 2, 1, 64, 64, 3)
    assert not np.array_equal(saved["pictures"][0], saved["pictures"][-1])
    said, complained = capfd.readouterr()
    assert complained == "" and "no layer silenced, by the same means: the context, " in said
    assert [line.split()[0] for line in said.splitlines()[-4:]] == [
        "finding",
        "control",
        "picture",
        "tensors",
    ]


def test_the_control_fails_where_silencing_changes_more(tmp_path, monkeypatch):
    """No prompt here is of the phantom's things: the sheet without a judge is drawn too."""
    other = lambda sd, texts: np.ones((4, len(texts), 77, 128), np.float32)  # noqa: E731
    monkeypatch.setattr(layers, "from_layers", other)
    image = np.random.default_rng(0).integers(0, 255, (1, 1, 64, 64, 3), np.uint8)
    monkeypatch.setattr(layers, "paint_each", lambda *given: image)
    with pytest.raises(SystemExit, match="control failed: what silences a layer"):
        call(layers.main, "on the left", "--out", tmp_path, monkeypatch=monkeypatch)
    assert spread(only(tmp_path / "text_layers") / "layers.png") > 10


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a cat", "--pictures", "0"], "--pictures 0 is not from 1 to 16"),
        (["a cat", "--steps", "0"], "steps must be from 1 to 1000"),
        (["a cat", "--guidance", "nan"], "guidance of nan is no number"),
        (["a cat", "--seed", "-1"], "seed of -1 is negative"),
        (["a cat", "--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(layers.main, words, told, tmp_path / "out", monkeypatch, capfd)
