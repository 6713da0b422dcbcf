"""Weights as constants of a graph, which lie in files and not in memory: OpenVINO packs its own
copy of them when it compiles."""

from typing import Any

import keras
import numpy as np
from keras import ops

from ..checkpoint.mapped import in_a_file
from ..checkpoint.names import axes, to_keras
from ..keras_private import openvino_constant, openvino_value
from ..precisions import RoundedToFloat16, StoredAsInt8
from .graph import widened

MOST = 127  # of int8, on both sides of zero


def constant_of(variable: keras.Variable, tensor: np.ndarray, policy: keras.DTypePolicy) -> Any:
    """A tensor, axes as diffusers has them, as the variable's value. Axes are turned in the graph,
    where the turn becomes part of a product."""
    if isinstance(policy, StoredAsInt8) and variable.name == "kernel":
        numbers, scales = narrowed(tensor)
        turned = np.ascontiguousarray(to_keras(numbers, variable))
        return openvino_value(widened(in_a_file(turned), scales))
    if isinstance(policy, RoundedToFloat16):
        tensor = tensor.astype(np.float16)
    as_it_lies = tensor.dtype == np.dtype(variable.dtype) and tensor.flags.writeable
    tensor = tensor if as_it_lies else in_a_file(tensor.astype(variable.dtype))
    value = to_keras(tensor, variable)
    if value.flags.c_contiguous:
        return openvino_constant(value)
    return ops.transpose(openvino_constant(tensor), np.argsort(axes(variable)).tolist())


def narrowed(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A kernel (out, ..) in int8, and what to multiply each output's numbers by, (out,) float32:
    the largest becomes 127."""
    rows = tensor.reshape(len(tensor), -1).astype(np.float32, copy=False)
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    scales = np.where(largest > 0, largest / MOST, 1).astype(np.float32)
    numbers = np.rint(rows / scales[:, None]).astype(np.int8)
    return numbers.reshape(tensor.shape), scales
