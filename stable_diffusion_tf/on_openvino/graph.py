"""Graphs of OpenVINO's rewritten: what they compute stays the same, in less time or memory."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset15 as opset

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # (b, h, w, c) → (b, c, h, w) and back


def flatten_places(graph: ov.Model) -> None:
    """Channels are moved, and concatenated, over places in a row, (b, h·w, c).

    With four axes the CPU plugin takes ours for (b, c, h, w), lays the numbers out as suits that,
    and moves them around every convolution, a twelfth of a UNet's time. With three it sees that
    none need be moved.
    """
    for node in graph.get_ordered_ops():
        if order_of(node) == TO_FIRST:
            new = turned(node, in_row(node.input(0).get_shape()))
        elif order_of(node) == TO_LAST:
            b, c, h, w = node.input(0).get_shape()
            new = turned(node, [b, c, h * w])
        elif node.get_type_name() == "Concat" and joins_channels(node):
            parts = [shaped(part, in_row(part.get_shape())) for part in node.input_values()]
            new = opset.concat(parts, 2)
        else:
            continue
        node.output(0).replace(shaped(new, node.output(0).get_shape()).output(0))


def turned(node: ov.Node, shape: Sequence[int]) -> ov.Node:
    """What a transposition is of, over three axes, with the last two changed for one another."""
    return opset.transpose(shaped(node.input_value(0), shape), np.array([0, 2, 1]))


def multiply_by_place(graph: ov.Model) -> None:
    """A convolution of stride 1 whose kernel is kept in int8 becomes a sum of products, one for
    each place of the kernel: OpenVINO multiplies by int8 as it lies, but a convolution's kernel it
    would widen, and keep so."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Convolution" or not keeps_size(node):
            continue
        before, kernel = (value.get_node() for value in node.input_values())
        after = [target.get_node() for target in node.output(0).get_target_inputs()]
        narrow = kept_in_int8(kernel) if order_of(kernel) == [3, 2, 0, 1] else None
        if narrow and order_of(before) == TO_FIRST and all(order_of(n) == TO_LAST for n in after):
            made = sum_of_products(before.input_value(0), *narrow)
            for one in after:
                one.output(0).replace(made.output(0))


def keeps_size(convolution: ov.Node) -> bool:
    """Whether it goes from place to place, and its result is as large as what it is of."""
    steps = {*convolution.get_strides(), *convolution.get_dilations()}
    before, after = convolution.input(0).get_partial_shape(), convolution.output(0)
    return steps == {1} and axes(convolution) == 4 and before[2:] == after.get_partial_shape()[2:]


def kept_in_int8(kernel: ov.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """The numbers (h, w, in, out) and the scales (out,) of a transposed kernel; None where it is
    kept otherwise."""
    product = kernel.input_value(0).get_node()
    if product.get_type_name() != "Multiply":
        return None
    wide, scales = (value.get_node() for value in product.input_values())
    if (wide.get_type_name(), scales.get_type_name()) != ("Convert", "Constant"):
        return None
    numbers = wide.input_value(0).get_node()
    if numbers.get_type_name() != "Constant" or numbers.get_element_type() != ov.Type.i8:
        return None
    return where_it_lies(numbers.data), scales.data


def where_it_lies(numbers: np.ndarray) -> np.ndarray:
    """int8 numbers of a constant as an array that another constant may share: OpenVINO shares none
    that is read-only, as its own are."""
    held = (ctypes.c_int8 * numbers.size).from_address(numbers.ctypes.data)
    held.owner = numbers  # which must not go before
    return np.frombuffer(held, np.int8).reshape(numbers.shape)


def sum_of_products(x: ov.Output, numbers: np.ndarray, scales: np.ndarray) -> ov.Node:
    """The convolution of x, (b, h, w, in), its size kept: (b, h, w, out)."""
    _, h, w, _ = x.get_shape()
    rows, columns, *_ = numbers.shape
    ends = np.array([0, rows // 2, columns // 2, 0])
    padded = opset.pad(x, ends, ends, "constant", np.float32(0)) if ends.any() else x
    products = [
        opset.matmul(
            part(part(padded, 1, i, h), 2, j, w), widened(numbers[i, j], scales), False, False
        )
        for i in range(rows)
        for j in range(columns)
    ]
    total = products[0]
    for one in products[1:]:
        total = opset.add(total, one)
    return total


def widened(numbers: np.ndarray, scales: np.ndarray) -> ov.Node:
    """int8 numbers (.., out), as they lie, times the scale of each output: float32."""
    narrow = opset.constant(numbers, shared_memory=True)
    return opset.multiply(opset.convert(narrow, "f32"), opset.constant(scales))


def part(x: Any, axis: int, start: int, size: int) -> ov.Node:
    return opset.slice(x, *(np.array([n]) for n in (start, start + size, 1, axis)))


def order_of(node: ov.Node) -> list[int] | None:
    """Of a transposition of four axes; None for any other node."""
    if node.get_type_name() != "Transpose" or axes(node) != 4:
        return None
    return node.input_value(1).get_node().data.tolist()


def joins_channels(node: ov.Node) -> bool:
    return axes(node) == 4 and node.get_axis() in (3, -1)


def axes(node: ov.Node) -> int:
    """How many a node's result has; 0 where its size is known only once it is computed."""
    shape = node.output(0).get_partial_shape()
    return len(shape) if shape.is_static else 0


def in_row(shape: Sequence[int]) -> list[int]:
    b, h, w, c = shape
    return [b, h * w, c]


def shaped(x: Any, shape: Sequence[int]) -> ov.Node:
    return opset.reshape(x, np.array(shape), False)
