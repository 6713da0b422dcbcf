"""The shared blocks against plain NumPy, and what they promise about memory, taps and precision."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_diffusion_tf import attention, eigen, layers
from stable_diffusion_tf.attention import (
    CHUNK_BYTES,
    GEGLU,
    Attention,
    TransformerBlock,
    chunk_size,
)
from stable_diffusion_tf.layers import GroupNorm, Tap
from stable_diffusion_tf.precisions import precision

patient = settings(deadline=None, max_examples=25)  # a busy machine is no failure
small = st.integers(1, 5)
shapes = st.tuples(small, small, small, small, small)  # b, h, w, groups, channels of a group
numbers = st.integers(1, 300)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def as_numpy(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def scramble(layer: keras.layers.Layer) -> None:
    """Random weights, all of order one."""
    for i, variable in enumerate(layer.weights):
        variable.assign(normal(*variable.shape, seed=i) * (variable.shape[0] ** -0.5))


# --- group norm


def group_norm(x, groups, epsilon, gamma, beta):
    b, h, w, c = x.shape
    y = x.astype(np.float64).reshape(b, h * w, groups, c // groups)
    mean, variance = y.mean((1, 3), keepdims=True), y.var((1, 3), keepdims=True)
    return ((y - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * gamma + beta


@patient
@given(shapes, st.sampled_from([1e-3, 1.0, 1e3]), st.sampled_from([1e-5, 1e-6]), st.booleans())
def test_group_norm_is_that_of_the_paper(shape, scale, epsilon, far):
    *picture, groups, width = shape
    x = scale * (normal(*picture, groups * width) + (10 if far else 0))
    layer = GroupNorm(groups, epsilon)
    layer.build(x.shape)
    scramble(layer)
    gamma, beta = (as_numpy(w) for w in layer.weights)
    expected = group_norm(x, groups, epsilon, gamma, beta)
    np.testing.assert_allclose(as_numpy(layer(x)), expected, rtol=1e-3, atol=1e-3)


def test_group_norm_counts_in_float32_whatever_the_policy():
    x = as_numpy(keras.ops.cast(normal(2, 16, 16, 8) + 100, "bfloat16"))  # deviation: two steps
    with precision("bfloat16"):
        layer = GroupNorm(4, 1e-5)
    made = layer(keras.ops.cast(x, "bfloat16"))
    assert keras.backend.standardize_dtype(made.dtype) == "bfloat16"
    np.testing.assert_allclose(as_numpy(made), group_norm(x, 4, 1e-5, 1, 0), rtol=2**-8, atol=1e-3)


def test_group_norm_names_itself_where_the_groups_do_not_fit():
    with pytest.raises(ValueError, match=r"norm1: 10 channels make no 4 groups"):
        GroupNorm(4, 1e-5, name="norm1")(normal(1, 2, 2, 10))


# --- attention


def by_the_formula(layer, x, context, offset):
    """The paper's formula, one head after another."""
    q, k, v = (
        y @ as_numpy(dense.kernel)
        for y, dense in ((x, layer.to_q), (context, layer.to_k), (context, layer.to_v))
    )
    heads = []
    for part in np.split(np.arange(q.shape[-1]), layer.count):
        logits = q[..., part] @ k[..., part].swapaxes(1, 2) / np.sqrt(len(part)) + offset
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[..., part])
    return np.concatenate(heads, -1) @ as_numpy(layer.to_out.kernel) + as_numpy(layer.to_out.bias)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 7, 24, 1000], ids="chunks of {} queries".format)
def test_attention_is_that_of_the_paper_in_chunks_of_any_size(monkeypatch, rows, watched):
    x, context = normal(2, 24, 12), normal(2, 5, 10, seed=1)
    layer = Attention(12, heads=3)
    whole = as_numpy(layer(x, context))
    scramble(layer)
    layer.probs.watched = watched
    monkeypatch.setattr(attention, "CHUNK_BYTES", rows * 4 * 2 * 3 * 5)
    made = as_numpy(layer(x, context))
    assert made.shape == whole.shape
    np.testing.assert_allclose(made, by_the_formula(layer, x, context, 0), rtol=1e-4, atol=1e-5)


def test_the_offset_masks():
    """As in the text encoder: no token sees a later one."""
    x = normal(2, 6, 12)
    layer = Attention(12, heads=3)
    later = np.triu(np.full((6, 6), -np.inf, np.float32), k=1)
    layer(x, offset=later)
    scramble(layer)
    np.testing.assert_allclose(
        as_numpy(layer(x, offset=later)), by_the_formula(layer, x, x, later), rtol=1e-4, atol=1e-5
    )


def test_a_width_that_makes_no_heads_is_refused():
    with pytest.raises(ValueError, match="a width of 10 makes no 4 heads"):
        Attention(10, heads=4)


@given(numbers, numbers, st.integers(1, 8), st.integers(1, 4), st.integers(1, 2**20))
def test_chunks_divide_the_queries_and_fit(n, m, heads, batch, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "CHUNK_BYTES", limit)
        chunk = chunk_size((batch, heads, n, 40), (batch, heads, m, 40))
    row = 4 * batch * heads * m
    assert n % chunk == 0
    assert chunk * row <= limit or chunk == 1
    larger = [d for d in range(chunk + 1, n + 1) if n % d == 0]
    assert all(d * row > limit for d in larger)


def test_the_largest_maps_of_sd_come_in_chunks():
    """4096 cells attending to themselves in 8 heads would be 512 MiB at once."""
    q = (1, 8, 4096, 40)
    assert chunk_size(q, q) == 512
    assert CHUNK_BYTES == 512 * 4096 * 8 * 4
    assert chunk_size(q, (1, 8, 77, 40)) == 4096
    assert chunk_size((None, 8, 4096, 40), q) == 512


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("rows", [4, 1000], ids="chunks of {} queries".format)
@pytest.mark.parametrize(
    ("policy", "tolerance"), [("float32", 1e-5), ("float16-storage", 1e-3), ("bfloat16", 3e-2)]
)
def test_the_softmax_is_in_the_dtype_that_is_computed_in(
    monkeypatch, policy, tolerance, rows, watched
):
    """To bring logits to float32 would double the largest array of the model. The tolerance, of
    the largest value, is that of the dtype's step."""
    x, context = normal(2, 24, 12), normal(2, 5, 10, seed=1)
    with precision(policy):
        layer = Attention(12, heads=3)
    layer(x, context)
    scramble(layer)
    layer.probs.watched = watched
    seen = []
    monkeypatch.setattr(Tap, "__call__", lambda self, x: seen.append((self.name, x.dtype)) or x)
    monkeypatch.setattr(attention, "CHUNK_BYTES", rows * 4 * 2 * 3 * 5)
    made = as_numpy(layer(x, context))
    computed = {"bfloat16": "bfloat16"}.get(policy, "float32")
    assert {keras.backend.standardize_dtype(dtype) for _, dtype in seen} == {computed}
    assert {name for name, _ in seen} == {"probs", "heads"}
    expected = by_the_formula(layer, x, context, 0)
    assert np.abs(made - expected).max() < tolerance * np.abs(expected).max()


# --- the gate of the feed-forward


def test_the_gate_is_the_exact_gelu():
    """The tanh approximation, Keras' default, is up to 5e-4 off: too little to show in a picture's
    worth of other numbers."""
    x = normal(1, 64, 6)
    layer = GEGLU(4)
    layer(x)
    scramble(layer)
    value, gate = np.split(x @ as_numpy(layer.proj.kernel) + as_numpy(layer.proj.bias), 2, axis=-1)
    erf = np.vectorize(math.erf)(gate / math.sqrt(2))
    np.testing.assert_allclose(as_numpy(layer(x)), value * gate * (1 + erf) / 2, atol=2e-5)


# --- taps


def operations(layer: keras.layers.Layer, *shapes: tuple[int, ...]) -> int:
    """How many operations a call is compiled to, those in loops included."""
    import tensorflow as tf

    function = tf.function(lambda *inputs: layer(*inputs), autograph=False)
    traced = function.get_concrete_function(*(tf.TensorSpec(s, tf.float32) for s in shapes))
    graph = traced.graph.as_graph_def()
    return len(graph.node) + sum(len(f.node_def) for f in graph.library.function)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="counts TensorFlow's operations"
)
@pytest.mark.parametrize("limit", [CHUNK_BYTES, 2**10], ids=["whole", "in chunks"])
def test_a_tap_leaves_nothing_in_the_graph(monkeypatch, limit):
    monkeypatch.setattr(attention, "CHUNK_BYTES", limit)
    block, inputs = TransformerBlock(8, heads=2), ((2, 16, 8), (2, 7, 8))
    block(*(normal(*shape) for shape in inputs))
    with_taps = operations(block, *inputs)
    passed = []
    monkeypatch.setattr(Tap, "__call__", lambda self, x: passed.append(self.name) or x)
    assert operations(block, *inputs) == with_taps
    assert {"probs", "heads", "gate", "after_attn1", "after_attn2"} <= set(passed)


def test_a_tap_has_its_address_and_no_weights():
    block = TransformerBlock(8, heads=2, name="block")
    block(normal(1, 4, 8), normal(1, 7, 8))
    assert block.attn2.probs.path == "block/attn2/probs"
    assert not block.attn2.probs.weights


# --- precision


@pytest.mark.parametrize("policy", ["float32", "bfloat16", "mixed_bfloat16", "float16-storage"])
def test_layers_made_inside_follow_the_policy(policy):
    before = keras.config.dtype_policy()
    with precision(policy):
        layer = Attention(8, heads=2)
    assert keras.config.dtype_policy() == before
    layer(normal(1, 4, 8))
    weights, computes = {
        "float32": ("float32", "float32"),
        "bfloat16": ("bfloat16", "bfloat16"),
        "mixed_bfloat16": ("float32", "bfloat16"),
        "float16-storage": ("float16", "float32"),
    }[policy]
    assert {str(w.dtype) for w in layer.weights} == {weights}
    assert {part.compute_dtype for part in (layer, layer.to_q, layer.to_out)} == {computes}


def test_the_policy_comes_back_after_an_error():
    before = keras.config.dtype_policy()
    with pytest.raises(KeyError), precision("bfloat16"):
        assert keras.config.dtype_policy().name == "bfloat16"
        raise KeyError
    assert keras.config.dtype_policy() == before


def test_an_unknown_policy_changes_nothing():
    before = keras.config.dtype_policy()
    with pytest.raises(ValueError, match="bfloat17"), precision("bfloat17"):
        pass
    assert keras.config.dtype_policy() == before


# --- convolutions by Eigen

by_eigen = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the operation is TensorFlow's"
)


@pytest.fixture
def eigen_calls(monkeypatch) -> list[tuple]:
    """The shapes that Eigen is given, on a CPU where it does what is large."""
    shapes, convolve = [], eigen.convolve
    monkeypatch.setattr(layers, "multiplies_by_gemm", lambda: True)
    monkeypatch.setattr(
        eigen, "convolve", lambda x, k: shapes.append(tuple(x.shape)) or convolve(x, k)
    )
    return shapes


@by_eigen
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("policy", ["float32", "float16-storage"])
def test_eigen_convolves_what_is_large(monkeypatch, eigen_calls, kernel, policy):
    with precision(policy):
        layer = layers.conv(4, kernel, "conv")
    x = normal(2, 7, 6, 3)
    layer.build(x.shape)
    scramble(layer)
    monkeypatch.setattr(layers, "GEMM_NUMBERS", numbers := kernel**2 * 7 * 6 * 3)
    usual = as_numpy(layer(x))
    assert not eigen_calls
    monkeypatch.setattr(layers, "GEMM_NUMBERS", numbers - 1)
    np.testing.assert_allclose(as_numpy(layer(x)), usual, rtol=1e-5, atol=1e-6)
    assert eigen_calls == [x.shape]
    monkeypatch.setattr(layers, "multiplies_by_gemm", lambda: False)
    np.testing.assert_array_equal(as_numpy(layer(x)), usual)
    assert len(eigen_calls) == 1


@by_eigen
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_eigen_has_the_gradients_of_any_convolution(kernel):
    import tensorflow as tf

    x, k = map(tf.constant, (normal(2, 7, 6, 3), normal(kernel, kernel, 3, 4)))
    made = []
    for convolve in (eigen.convolve, lambda x, k: tf.nn.conv2d(x, k, 1, "SAME")):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch([x, k])
            with tf.GradientTape() as tape:
                tape.watch([x, k])
                y = tf.reduce_sum(convolve(x, k) ** 3)
            first = tape.gradient(y, [x, k])
            bent = sum(tf.reduce_sum(g**2) for g in first)
        made.append([*first, *outer.gradient(bent, [x, k])])
    for ours, theirs in zip(*made, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_the_decoder_of_sd_is_large_at_512_pixels_and_its_unet_is_not():
    """The widest of each."""
    assert layers.is_large((1, 512, 512, 256), (3, 3))
    assert not layers.is_large((1, 64, 64, 960), (3, 3))


@pytest.mark.parametrize(
    ("backend", "onednn", "best", "does"),
    [
        ("tensorflow", True, "AVX2", True),
        ("tensorflow", True, "AVX512_CORE", False),
        ("tensorflow", True, "arm64", False),
        ("tensorflow", False, "AVX2", False),
        ("jax", False, "AVX2", False),
    ],
)
def test_only_onednn_without_avx512_multiplies_by_gemm(monkeypatch, backend, onednn, best, does):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    found = {"onednn": onednn, "instruction_set": best}
    monkeypatch.setattr(layers, "kernels", lambda backend: found)
    assert layers.multiplies_by_gemm() is does
