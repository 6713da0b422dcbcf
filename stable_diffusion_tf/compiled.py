"""A network as a function of NumPy arrays, compiled by whichever backend Keras runs on."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from .backend import TYPE, warn_of_untested
from .checkpoint.mapped import given_back_meanwhile
from .errors import UsageError
from .keras_private import openvino_inputs
from .layers import PackedAsBfloat16

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
    """Traced and compiled once for every shape, NumPy in and out. The precision is said outright:
    left alone, OpenVINO chooses bfloat16 where the CPU has it."""
    import openvino as ov

    warn_of_untested({"keras": keras.__version__, "openvino": ov.__version__})
    core = ov.Core()
    hint = "bf16" if isinstance(network.dtype_policy, PackedAsBfloat16) else "f32"
    made: dict[tuple, tuple[Any, Any]] = {}  # shapes and dtypes → compiled, and how it is nested

    def run(*arrays: Any) -> Any:
        flat = [np.asarray(array) for array in tree.flatten(arrays)]
        key = tuple((array.shape, str(array.dtype)) for array in flat)
        if key not in made:
            inputs, symbols = openvino_inputs(flat)
            with gaps_told():
                out = call(*tree.pack_sequence_as(arrays, symbols))
            model = ov.Model([x.output for x in tree.flatten(out)], inputs)
            with given_back_meanwhile():  # OpenVINO packs its own copy of the weights
                found = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
            made[key] = found, out
        compiled_model, out = made[key]
        found = compiled_model(flat, share_inputs=True)
        return tree.pack_sequence_as(out, [*found.values()])

    return run


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


COMPILERS = {
    "tensorflow": with_tensorflow,
    "jax": with_jax,
    "torch": with_torch,
    "openvino": with_openvino,
}


def compiled(network: keras.Model, call: Callable | None = None) -> ArrayFunction:
    """Arrays → arrays, floats in float32. Every new shape is compiled once, all sizes static.

    call: what to compile in place of the network itself, a function that calls it. Its arguments
    and what it returns may be nested in lists and dicts.
    """
    call = partial(network, training=False) if call is None else call
    backend = keras.backend.backend()
    made = COMPILERS[backend](network, call)
    take = np.asarray if backend == "openvino" else ops.convert_to_tensor

    def run(*arrays: Any) -> Any:
        return tree.map_structure(to_numpy, made(*tree.map_structure(take, arrays)))

    return run


def to_numpy(tensor: Any) -> np.ndarray:
    """NumPy has no bfloat16: all floats come as float32."""
    if isinstance(tensor, np.ndarray):
        return tensor.astype(np.float32, copy=False) if is_float(tensor) else tensor
    return ops.convert_to_numpy(ops.cast(tensor, "float32") if is_float(tensor) else tensor)


def is_float(tensor: Any) -> bool:
    """Whether it holds floats, of whatever library it is."""
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))
