"""A network as a function of NumPy arrays, compiled by whichever backend Keras runs on."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from .backend import TYPE
from .errors import UsageError

ArrayFunction = Callable[..., Any]


def with_tensorflow(network: keras.Model, call: Callable) -> Callable:
    import tensorflow as tf

    return tf.function(call, autograph=False)


def with_jax(network: keras.Model, call: Callable) -> Callable:
    import jax

    def pure(weights, *inputs):
        with keras.StatelessScope(zip(network.variables, weights, strict=True)):
            return call(*inputs)

    # the weights are an input, not constants in the program: they are not held twice
    compiled = jax.jit(pure)
    return lambda *inputs: compiled([v.value for v in network.variables], *inputs)


def with_torch(network: keras.Model, call: Callable) -> Callable:
    import torch

    return torch.no_grad()(call)


def with_openvino(network: keras.Model, call: Callable) -> Callable:
    from .on_openvino.compile import with_openvino

    return with_openvino(network, call)


@contextmanager
def gaps_told() -> Iterator[None]:
    """An operation that Keras' OpenVINO backend does not have is one line; on its way up through
    the layers Keras makes a page of it."""
    try:
        yield
    except NotImplementedError as error:
        if keras.backend.backend() != "openvino":
            raise
        said = re.search(r"[^\n\x1b]*support[^\n\x1b]*", re.sub(r"\x1b\[\d+m", "", str(error)))
        raise UsageError(f"{said[0] if said else error}; {TYPE}, or jax or torch") from None


def on_tensors(make: Callable) -> Callable:
    """A compiler whose functions take the backend's tensors, for functions that take arrays."""

    def made(network: keras.Model, call: Callable) -> Callable:
        run = make(network, call)
        return lambda *arrays: run(*tree.map_structure(ops.convert_to_tensor, arrays))

    return made


COMPILERS = {
    "tensorflow": on_tensors(with_tensorflow),
    "jax": on_tensors(with_jax),
    "torch": on_tensors(with_torch),
    "openvino": with_openvino,
}


def compiled(network: keras.Model, call: Callable | None = None) -> ArrayFunction:
    """Arrays → arrays, floats in float32. Every new shape is compiled once, all sizes static.

    call: what to compile in place of the network itself, a function that calls it. Its arguments
    and what it returns may be nested in lists and dicts.
    """
    call = partial(network, training=False) if call is None else call
    made = COMPILERS[keras.backend.backend()](network, call)

    def run(*arrays: Any) -> Any:
        return tree.map_structure(to_numpy, made(*arrays))

    return run


def to_numpy(tensor: Any) -> np.ndarray:
    """NumPy has no bfloat16: all floats come as float32."""
    if isinstance(tensor, np.ndarray):
        return tensor.astype(np.float32, copy=False) if is_float(tensor) else tensor
    return ops.convert_to_numpy(ops.cast(tensor, "float32") if is_float(tensor) else tensor)


def is_float(tensor: Any) -> bool:
    """Whether it holds floats, of whatever library it is."""
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))
