"""Graphs are rewritten, and compute what they did."""

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as opset

from stable_diffusion_tf.on_openvino.graph import flatten_places, multiply_by_place, widened

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 6, 4, 8)).astype(np.float32)
NUMBERS = RNG.integers(-127, 128, (3, 3, 16, 5)).astype(np.int8)
SCALES = RNG.uniform(0.001, 0.01, 5).astype(np.float32)


def turned(x, order) -> ov.Node:
    return opset.transpose(x, np.array(order))


def halved() -> ov.Node:
    return opset.convert(opset.constant(NUMBERS.astype(np.float16)), "f32")


def convolved(kernel, stride: int = 1) -> ov.Model:
    """x beside itself, convolved as Keras says it where channels come last."""
    x = opset.parameter([*X.shape], np.float32)
    both = opset.concat([x, opset.multiply(x, np.float32(2))], 3)
    ends, step = [1, 1], [stride, stride]
    kernel = turned(kernel, [3, 2, 0, 1])
    made = opset.convolution(turned(both, [0, 3, 1, 2]), kernel, step, ends, ends, [1, 1])
    return ov.Model([turned(made, [0, 2, 3, 1]).output(0)], [x])


def answer(graph: ov.Model) -> np.ndarray:
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    return ov.Core().compile_model(graph, "CPU", exact)([X])[0]


def kinds(graph: ov.Model) -> list[str]:
    return [node.get_type_name() for node in graph.get_ordered_ops()]


def test_channels_are_moved_over_places_in_a_row():
    graph = convolved(opset.constant(NUMBERS * SCALES))
    before = answer(graph)
    flatten_places(graph)
    moved = [n for n in graph.get_ordered_ops() if n.get_type_name() in ("Transpose", "Concat")]
    assert sorted(len(n.output(0).get_shape()) for n in moved) == [3, 3, 3, 4]  # 4: the kernel
    np.testing.assert_allclose(answer(graph), before, rtol=1e-5, atol=1e-5)


def test_a_kernel_in_int8_is_multiplied_place_by_place():
    graph = convolved(widened(NUMBERS, SCALES))
    before = answer(graph)
    multiply_by_place(graph)
    assert "Convolution" not in kinds(graph) and kinds(graph).count("MatMul") == 9
    np.testing.assert_allclose(answer(graph), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [
        (lambda: opset.constant(NUMBERS * SCALES), 1),
        (lambda: opset.multiply(opset.constant(NUMBERS * SCALES), opset.constant(SCALES)), 1),
        (lambda: opset.multiply(halved(), opset.constant(SCALES)), 1),
        (lambda: widened(NUMBERS, SCALES), 2),
    ],
    ids=["float32", "a product", "float16 widened", "stride 2"],
)
def test_other_convolutions_stay(kernel, stride):
    graph = convolved(kernel(), stride)
    multiply_by_place(graph)
    assert "Convolution" in kinds(graph) and "MatMul" not in kinds(graph)


def test_a_size_that_only_a_run_can_tell_is_left_alone():
    x = opset.parameter([2, 3], np.float32)
    graph = ov.Model([turned(opset.non_zero(x), [1, 0]).output(0)], [x])
    flatten_places(graph)
    assert kinds(graph).count("Transpose") == 1
