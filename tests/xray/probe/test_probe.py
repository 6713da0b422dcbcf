"""Any value read, any value replaced: in toys of every kind, in a small model, in the phantom."""

from collections import Counter

import keras
import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion, attention, layers
from stable_diffusion_tf.errors import UsageError
from tests import tiny
from tests.xray import toys
from xray.measure import parting
from xray.probe import Edit, Mean, Probe, capture, take, taps
from xray.probe.addresses import dims_of, matches
from xray.probe.hooks import addresses, layers_of, watching
from xray.probe.instrumented import instrument
from xray.rounding import MARGIN, floor_of_runs, hold, twin_runs

pytestmark = pytest.mark.arithmetic

CROSS = "unet.*.attn2.probs"
FIRST = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.probs"
BLOCK = "unet.down_blocks.0"
LAST = "unet.up_blocks.2.attentions.1.transformer_blocks.0.attn2.probs"
STEPS = 3


def run(sd: StableDiffusion, **options) -> tuple[list, list[dict]]:
    """The steps of a short run, and what was read at each."""
    context = sd.encode_text(["a cat left of an apple", ""])
    steps, read = [], []
    seen = instrument(sd, **options)
    for step in seen.denoise(context[:1], context[1:], steps=STEPS, seed=1):
        steps.append(step)
        read.append(dict(seen.reads))
    return steps, read


@pytest.fixture(scope="module")
def sd(small):
    return small


@pytest.fixture(scope="module")
def plain_run(sd):
    return run(sd)[0]


def reach(sd: StableDiffusion) -> float:
    """How far rounding moves such a run: an instrument is another compiled function."""
    contexts = sd.encode_text(["a cat left of an apple", ""])
    facts = {"uncond": contexts[1:], "steps": STEPS, "guidance": 7.5}
    runs = twin_runs(sd, contexts[:1], sd.draw_noise(1), facts)
    return floor_of_runs(runs, ("eps", "x_prev"))


def near(one: list, other: list, reaches: float) -> bool:
    """Whether two runs differ by no more than rounding."""
    return all(
        parting(getattr(a, name), getattr(b, name)) <= MARGIN * reaches
        for a, b in zip(one, other, strict=True)
        for name in ("eps", "x_prev")
    )


@pytest.fixture(scope="module")
def reaches(sd):
    return reach(sd)


@pytest.fixture(scope="module")
def same(reaches):
    return lambda one, other: near(one, other, reaches)


# --- patterns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "address", "meant"),
    [
        ("unet.*.probs", "unet.a.b.probs", True),
        ("unet.a", "unet.a.b", False),
        ("unet.a", "unet.a#2", True),
        ("unet.a#2", "unet.a#2", True),
        ("unet.a#2", "unet.a", False),
        ("unet.a.b", "unet.a#2.b", True),
        ("unet.a", "unet.a:1", True),
        ("unet.a:0", "unet.a:1", False),
        ("unet.a", "unet.a:in", False),
        ("unet.*", "unet.a:in.x", False),
        ("unet.a:in", "unet.a:in", True),
        ("unet.a:in", "unet.a:in.x", True),
        ("unet.a:in.x", "unet.a:in.y", False),
        ("unet.a:in", "unet.a#2:in", True),
    ],
)
def test_what_a_pattern_means(pattern, address, meant):
    assert matches(pattern, address) is meant


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        (
            {"probes": [Probe("unet.*.attn3.probs")]},
            r"no tap matches 'unet.*attn3.*nearest are unet",
        ),
        ({"probes": [Probe([CROSS, "unet.conv_inn"])]}, r"'unet.conv_inn'.*unet.conv_in"),
        ({"probes": [Probe("unet.conv_in:7")]}, "unet.conv_in is there, but has no such value"),
        ({"probes": [Probe(CROSS, Mean("row"))]}, "no mean over 'row': the axes are half, head"),
        ({"edits": [Edit(CROSS, lambda x: x[:1])]}, "must keep the shape"),
        ({"edits": [Edit("unet.conv_in", abs, heads=[0])]}, "no axis of heads"),
        ({"edits": [Edit(CROSS, abs, heads=[2])]}, "has 2 heads; there is no 2"),
        ({"edits": [Edit(CROSS, abs, tokens=[77])]}, "has 77 tokens; there is no 77"),
        ({"edits": [Edit(CROSS, abs, steps=[3])]}, "no step 3 in a run of 3: they are 0 … 2"),
        ({"edits": [Edit(CROSS, source={"unet": 0})]}, "holds nothing under"),
        ({"edits": [Edit(CROSS, source={LAST: 0})]}, "has no unet.*probe it there too"),
        ({"edits": [Edit(FIRST, source={FIRST: np.zeros(3)})]}, r"holds \(3,\) for.*same size"),
        ({"edits": [Edit(CROSS, source=[])]}, "no such step in its film of 0"),
    ],
)
def test_what_cannot_be_done_is_said(sd, rules, complaint):
    with pytest.raises(UsageError, match=complaint):
        run(sd, **rules)
    assert "call" not in {name for layer in layers_of(sd.network("unet")) for name in vars(layer)}


def test_an_edit_says_what_it_does():
    with pytest.raises(UsageError, match="says nothing"):
        Edit(CROSS)
    with pytest.raises(UsageError, match="no half 'both'"):
        Edit(CROSS, abs, half="both")


# --- any Keras model ---------------------------------------------------------------------------


def test_toys_of_every_kind_give_out_what_arithmetic_says():
    found, wanted = toys.answers(), toys.expected()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_looking_leaves_a_model_as_it_was():
    model, given, _ = toys.shared()
    before = [dict(vars(layer)) for layer in layers_of(model)]
    nodes = len(model._inbound_nodes)
    capture(model, given, [Probe("*")])
    with pytest.raises(ZeroDivisionError):
        capture(model, given, edits=[Edit("toy.again", lambda x: x / (1 // 0))])
    assert [vars(layer).keys() for layer in layers_of(model)] == [was.keys() for was in before]
    assert len(model._inbound_nodes) == nodes
    np.testing.assert_array_equal(capture(model, given)[0], 36 * toys.X)


def test_a_value_inside_a_compiled_loop_is_out_of_reach():
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(2, name="lstm")], name="toy")
    x = np.ones((1, 4, 3), np.float32)
    out, reads = capture(model, x, [Probe("*")])
    np.testing.assert_array_equal(reads["toy.lstm"], out)
    with pytest.raises(UsageError, match=r"no tap matches .toy\.lstm\.lstm_cell.*toy\.lstm"):
        capture(model, x, [Probe("toy.lstm.lstm_cell")])


# --- the list ----------------------------------------------------------------------------------


def test_every_tap_is_listed_with_its_shape_and_axes(phantom):
    listed = {tap.address: tap for tap in taps(phantom)}
    cross = listed[FIRST]
    assert cross.shape == (2, 4, 256, 77) and cross.bytes == 4 * 2 * 4 * 256 * 77
    assert cross.dims == ("half", "head", "query", "token") and "cross-attention" in cross.meaning
    order = [tap.split(".")[0] for tap in listed]
    assert order == sorted(order, key=["text_encoder", "unet", "vae"].index)
    for part in ("text_encoder", "unet", "encoder", "decoder"):
        known = {a for a in addresses(phantom.network(part)) if not a.endswith(".pad")}
        assert known <= {address.split(":")[0] for address in listed} | {"vae"}, part
    assert not [tap for tap in listed.values() if any(d.startswith("axis_") for d in tap.dims)]
    assert not [address for address, tap in listed.items() if not tap.meaning]


def test_the_list_needs_no_weights(monkeypatch):
    fresh = StableDiffusion.load("phantom")
    monkeypatch.setattr(fresh, "network", None)
    assert len(taps(fresh)) > 300


def test_what_is_read_has_the_shape_that_was_listed(phantom):
    _, read = run(phantom, probes=[Probe("unet.*")])
    listed = {tap.address: tap.shape for tap in taps(phantom)}
    found = {address: value.shape for address, value in read[0].items()}
    assert found == {a: shape for a, shape in listed.items() if a in found} and len(found) > 150


def values_in(network: keras.Model, asked: list[np.ndarray]):
    """The TensorFlow graph of one call, and the names of all tensors that taps see in it."""
    import tensorflow as tf

    seen = set()

    def see(_, value):
        seen.add(value.name)
        return value

    def call(*inputs):
        with watching(network, see):
            return network(*inputs, training=False)

    specs = [tf.TensorSpec(x.shape, x.dtype) for x in asked]
    return tf.function(call, autograph=False).get_concrete_function(*specs).graph, seen


QUESTIONS = {
    "text_encoder": [np.zeros((2, 6), np.int32)],
    "unet": [
        np.zeros((2, 8, 8, 4), np.float32),
        np.zeros(2, np.int32),
        np.zeros((2, 77, 12), np.float32),
    ],
    "encoder": [np.zeros((1, 16, 16, 3), np.float32)],
    "decoder": [np.zeros((1, 8, 8, 4), np.float32)],
}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="walks TensorFlow's graph")
@pytest.mark.parametrize("part", QUESTIONS)
def test_every_softmax_sum_and_block_has_a_tap(part):
    """Each softmax, each sum of two values of one shape, each block and each layer's output."""
    network = tiny.PARTS[part][2](tiny.PARTS[part][1])
    graph, seen = values_in(network, QUESTIONS[part])
    wanted = [op.outputs[0] for op in graph.get_operations() if op.type == "Softmax"]
    for op in graph.get_operations():
        shapes = {tuple(x.shape) for x in op.inputs}
        if op.type == "AddV2" and len(shapes) == 1 and len(op.inputs[0].shape) > 2:
            wanted.append(op.outputs[0])
    assert wanted
    assert not [x.name for x in wanted if x.name not in seen]
    told = {tap.address.split(":")[0] for tap in taps(network, *QUESTIONS[part])}
    blocks = [a for a in addresses(network) if not a.endswith(".pad")]
    assert not [address for address in blocks if address not in told]


def operations(network: keras.Model, asked: list[np.ndarray]) -> Counter:
    graph, _ = values_in(network, asked)
    return Counter(op.type for op in graph.get_operations())


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="counts TensorFlow's operations"
)
@pytest.mark.parametrize("part", QUESTIONS)
def test_taps_leave_not_one_operation_in_the_graph(part, monkeypatch):
    network = tiny.PARTS[part][2](tiny.PARTS[part][1])
    with_taps = operations(network, QUESTIONS[part])
    capture(network, tuple(QUESTIONS[part]), [Probe("*")])
    after_a_look = operations(network, QUESTIONS[part])
    monkeypatch.setattr(layers.Tap, "__call__", lambda self, x: x)
    assert with_taps == after_a_look == operations(network, QUESTIONS[part])


# --- the phantom -------------------------------------------------------------------------------


def test_reading_everything_changes_nothing(phantom):
    steps, _ = run(phantom, probes=[Probe("unet.*"), Probe("unet.*:in")])
    assert near(steps, run(phantom)[0], reach(phantom))


def test_reading_text_and_picture_changes_nothing(phantom):
    latent, seen = phantom.draw_noise(0), instrument(phantom, ["text_encoder*", Probe("vae.*")])
    rows = phantom.encode_text(["a cat"] * 3)
    context = seen.encode_text("a cat")
    assert hold(context, rows[:1], rows).passed
    images = phantom.decode_latent(np.repeat(latent, 3, 0))
    assert hold(seen.decode_latent(latent), images[:1], images).passed
    moments = phantom.encode_posterior(images)[0]
    read = seen.encode_posterior(images[:1])[0]
    assert hold(read, moments[:1], moments).passed
    reads = seen.reads
    assert np.array_equal(reads["text_encoder"], context)
    assert np.array_equal(np.split(reads["vae.moments"], 2, -1)[0], read)
    assert reads.dims["vae.decoder.mid_block.attentions.0.probs"] == (
        "image",
        "head",
        "query",
        "key",
    )


# --- a small model -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        Edit("unet.*", lambda x: x),
        Edit("unet.*:in", lambda x: x),
        Edit("unet.*", lambda x: x * 0, steps=[]),
        Edit(CROSS, lambda x: x * 0, heads=[]),
    ],
    ids=["identity", "identity of inputs", "no step", "no head"],
)
def test_an_edit_that_changes_nothing_moves_nothing(sd, plain_run, same, edit):
    assert same(run(sd, edits=[edit])[0], plain_run)


def test_a_run_patched_with_itself_is_itself(sd, plain_run, same):
    places = [CROSS, "unet.*.attn1.probs", BLOCK, "unet.*.skips.*"]
    _, read = run(sd, probes=[Probe(places)])
    assert same(run(sd, edits=[Edit(places, source=read)])[0], plain_run)


def test_patching_everything_that_comes_out_gives_the_other_run(sd, plain_run, same):
    _, read = run(sd, probes=[Probe("unet")])
    context = sd.encode_text(["a dog", "two"])
    patched = instrument(sd, edits=Edit("unet", take, source=read))
    other = list(patched.denoise(context[:1], context[1:], steps=STEPS, seed=1))
    assert same(other, plain_run)


def test_an_edit_keeps_to_its_steps(sd, plain_run, reaches):
    steps, _ = run(sd, edits=[Edit(BLOCK, lambda x: x * 0, steps=[1])])
    moved = [parting(a.eps, b.eps) for a, b in zip(steps, plain_run, strict=True)]
    assert moved[0] <= MARGIN * reaches and moved[1] > 1e-3
    assert parting(steps[1].x, plain_run[1].x) <= MARGIN * reaches


@pytest.mark.parametrize("half", ["cond", "uncond"])
def test_an_edit_keeps_to_its_half(sd, plain_run, reaches, half):
    steps, _ = run(sd, edits=[Edit(BLOCK, lambda x: x * 0, half=half)])
    other = {"cond": "uncond", "uncond": "cond"}[half]
    gap = {
        h: parting(getattr(steps[0], f"eps_{h}"), getattr(plain_run[0], f"eps_{h}"))
        for h in (half, other)
    }
    assert gap[other] <= MARGIN * reaches and gap[half] > 1e-3


def test_an_edit_keeps_to_its_heads_and_tokens(sd):
    edit = Edit(FIRST, lambda x: x * 0 - 1, heads=[1], tokens=[2], half="cond", steps=[0])
    _, read = run(sd, probes=[Probe(FIRST)], edits=[edit])
    marked = read[0][FIRST] == -1  # a probe reads what the edit left
    wanted = np.zeros_like(marked)
    wanted[1, 1, :, 2] = True
    np.testing.assert_array_equal(marked, wanted)
    assert not (read[1][FIRST] == -1).any()


def test_a_mean_is_the_mean(sd):
    _, whole = run(sd, probes=[Probe(CROSS)])
    reads = (seen := instrument(sd, Probe(CROSS, Mean("head")))).reads
    context = sd.encode_text(["a cat left of an apple", ""])
    next(iter(seen.denoise(context[:1], context[1:], steps=STEPS, seed=1)))
    assert reads.dims[FIRST] == ("half", "query", "token")
    np.testing.assert_allclose(reads[FIRST], whole[0][FIRST].mean(1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reduce", [None, Mean("head"), Mean(("head", "query")), lambda x: x[:, 0]])
def test_attention_in_chunks_is_read_in_one_piece(sd, monkeypatch, same, reduce):
    """A few queries at a time, as it is done where memory is short: reduced part by part."""
    self_attention = FIRST.replace("attn2", "attn1")
    whole = run(sd, probes=[Probe(self_attention, reduce)])[1][0][self_attention]
    monkeypatch.setattr(attention, "CHUNK_BYTES", 2**14)
    monkeypatch.setattr(sd, "functions", {})
    chunked_run = run(sd)[0]
    steps, read = run(sd, probes=[Probe(self_attention, reduce)])
    np.testing.assert_allclose(read[0][self_attention], whole, rtol=1e-4, atol=1e-7)
    assert same(steps, chunked_run)
    if reduce is None:
        given = [{self_attention: values[self_attention]} for values in read]
        assert same(run(sd, edits=[Edit(self_attention, source=given)])[0], chunked_run)


def test_axes_are_named_by_what_they_are():
    assert dims_of("unet.conv_in", 4) == ("half", "row", "column", "channel")
    assert dims_of("unet.conv_in:in", 4) == ("half", "row", "column", "channel")
    assert dims_of("unet.a.attn2.to_k", 3) == ("half", "token", "channel")
    assert dims_of("unet.a.attn1.to_k", 3) == ("half", "query", "channel")
    assert dims_of("text_encoder.a.self_attn.probs", 4) == ("prompt", "head", "token", "key")
    assert dims_of("resnet.conv", 4) == ("batch", "axis_1", "axis_2", "axis_3")
    assert dims_of("resnet.count", 0) == ()


def test_the_compiled_function_is_the_model_itself_where_no_probe_looks(sd):
    seen = instrument(sd, "unet.conv_in")
    assert seen.function("text_encoder") is sd.function("text_encoder")
    assert seen.function("unet") is not sd.function("unet")


# --- attention of Keras' own


def test_what_keras_attention_shows_of_its_probabilities():
    x, fill = keras.Input((5, 8)), np.random.default_rng(0)
    tokens = fill.standard_normal((1, 5, 8), dtype=np.float32)
    seen = {}
    for way, options, call in [
        ("fused", {}, {}),
        ("dropout", {"dropout": 0.1}, {}),
        ("scores", {}, {"return_attention_scores": True}),
    ]:
        attention = keras.layers.MultiHeadAttention(2, 4, name="attention", **options)
        model = keras.Model(x, attention(x, x, **call), name="net")
        rng = np.random.default_rng(1)
        attention.set_weights([rng.standard_normal(w.shape) for w in attention.get_weights()])
        _, values = capture(model, tokens, ["net.attention.*"])
        seen[way] = {address: v for address, v in values.items() if "softmax" in address}
    q, k = values["net.attention.query"], values["net.attention.key"]
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / 2
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert not seen["fused"]
    for way in ("dropout", "scores"):
        (found,) = seen[way].values()
        np.testing.assert_allclose(found, probs, atol=1e-6)
