"""The script on the text encoder's layers: its numbers on planted cases, its control, a run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import text_layers as layers
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray import rounding
from xray.measure import Estimate, share_of
from xray.methods import text_layers
from xray.probe import Probe, capture
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

TEXTS = ["a cat on pink", "a tree"]


def test_ablations_leave_the_first_layers_or_all_but_one_attention():
    some = text_layers.ablations(2)
    assert some["embeddings alone"].tolist() == [[False, False]] * 2
    assert some["layer 1"].tolist() == [[True, True], [False, False]]
    assert some["layers 1 and 2"].all()
    assert some["all but the attention of layer 2"].tolist() == [[True, True], [False, True]]
    assert len(some) == 5 and "layers 1 to 12" in text_layers.ablations(12)


def test_likeness_is_the_cosine_with_the_whole():
    whole = np.array([[[2.0, 0]], [[1, 1]]])
    contexts = np.array([[[[3.0, 0]], [[0, 1]]], [[[0, 1]], [[1, 0]]], whole])
    half = 0.5**0.5
    found = text_layers.likeness(contexts, whole)
    np.testing.assert_allclose(found, [[1, half], [0, half], [1, 1]])


@pytest.mark.arithmetic
def test_contexts_are_those_of_the_states_that_probes_read(sd):
    """A layer's state through the final norm is the context with the later layers ablated; with
    none ablated it is the model's own; attention ablated leaves the MLP to act on its input."""
    acting = np.stack([*text_layers.ablations(3).values()])
    contexts = text_layers.encode_ablated(sd, TEXTS, acting)
    network = sd.network("text_encoder")
    parts = ["embeddings", *(f"encoder.layers.{i}" for i in range(3))]
    names = [f"text_encoder.text_model.{part}" for part in parts]
    _, states = capture(network, sd.tokenize(TEXTS), [Probe(names)])
    norm = network.text_model.final_layer_norm
    for name, context in zip(names, contexts, strict=False):
        np.testing.assert_allclose(context, np.asarray(norm(states[name])), atol=1e-5)
    layer, before = network.text_model.encoder.layers[2], states[names[2]]
    np.testing.assert_allclose(
        contexts[-1], np.asarray(norm(before + layer.mlp(layer.layer_norm2(before)))), atol=1e-5
    )
    same = sd.encode_text(TEXTS * len(acting)).reshape(contexts.shape)
    assert rounding.hold(contexts[3], same[3], same).passed
    assert np.abs(contexts[3] - contexts[2]).max() > 0.01


def rows(column: str, *stops: Estimate) -> dict[str, dict[str, Estimate]]:
    """Of two layers, stopped after none, one, both; then without either's attention."""
    names, (first, *_) = text_layers.ablations(2), stops
    return {
        name: {column: one} for name, one in zip(names, [*stops, first, stops[-1]], strict=True)
    }


def test_things_appear_where_the_counts_clearly_rise():
    few, some, many = (share_of(np.arange(32) < hits) for hits in (1, 12, 30))
    layer, said = layers.figures.tell_layer(rows("things", few, many, many))
    assert layer == "layer 1" and said == (
        "Things appear with layer 1: stopped after it, 30 of 32 pictures [80, 98 %] show them; "
        "without its attention, 1 of 32."
    )
    assert layers.figures.tell_layer(rows("things", few, some, many))[0] == "layer 2"
    layer, said = layers.figures.tell_layer(rows("things", few, share_of(np.arange(32) < 4), some))
    assert layer is None and said.startswith("No layer clearly brings the things: stopped after")


def test_where_some_layers_are_looked_into_those_between_two_are_named():
    few, many = (share_of(np.arange(32) < hits) for hits in (1, 30))
    names = text_layers.ablations(12, [6])
    assert [*names] == [
        "embeddings alone", "layers 1 to 6", "layers 1 to 12",
        "all but the attention of layer 6", "all but the attention of layer 12",
    ]  # fmt: skip
    some = zip(names, (few, many, many, few, many), strict=True)
    layer, said = layers.figures.tell_layer({name: {"things": one} for name, one in some})
    assert layer == "layers 1 to 6" and said == (
        "Things appear with layers 1 to 6: stopped after 6, 30 of 32 pictures [80, 98 %] "
        "show them; without attention there, 1 of 32."
    )
    assert len(said.split()) <= 25


def test_where_nobody_can_judge_the_cosine_is_told():
    low, high = Estimate(0.1, 0.0, 0.2, 8), Estimate(0.9, 0.8, 1.0, 8)
    layer, said = layers.figures.tell_layer(rows("cosine", low, low, high))
    assert layer == "layer 2" and "whole encoder's is 0.90 [0.80, 1.00]; without" in said
    alone = low._replace(low=np.nan, high=np.nan), high._replace(low=np.nan, high=np.nan)
    assert layers.figures.tell_layer(rows("cosine", *alone, alone[1]))[0] is None


@pytest.mark.arithmetic
def test_it_saves_sheet_tensors_and_report(tmp_path, monkeypatch, capfd):
    call(layers.main, *TEXTS, "--steps", 1, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text_layers")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["contexts"].shape == (7, 3, 77, 128)
    assert saved["pictures"].shape == (7, 4, 64, 64, 3)
    assert not np.array_equal(saved["pictures"][0], saved["pictures"][3])
    report, _ = read_report(folder / "report.json")
    assert report.control.passed and report.table[0]["things"].n == 4
    assert report.table[0]["background"].n == 2, "one prompt names no background"
    assert "things appear with" in report.numbers and "a-cat-on-pink" in folder.name
    assert capfd.readouterr().err == ""


def test_the_control_fails_where_ablating_changes_more(tmp_path, monkeypatch, capfd):
    """No prompt here is of the phantom's things: the sheet without marks is drawn too."""
    usual = layers.encode_ablated
    monkeypatch.setattr(layers, "encode_ablated", lambda *given: usual(*given) * 1.01)
    words = ["on the zebra", "--steps", 1, "--out", tmp_path]
    with pytest.raises(SystemExit, match="control failed: what ablates a layer"):
        call(layers.main, *words, monkeypatch=monkeypatch)
    assert spread(only(tmp_path / "text_layers") / "figure.png") > 10
    assert "never saw 'zebra'" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a cat", "--guidance", "nan"], "guidance of nan is no number"),
        (["a cat", "--weights", "nothing-such"], "not in the catalogue"),
        (["a cat", "--layers", "0"], "--layers 0 is not one of 1 to 3"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(layers.main, words, told, tmp_path / "out", monkeypatch, capfd)
