"""A network as a function of NumPy arrays, compiled by whichever backend Keras runs on."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from .backend import TYPE
from .errors import UsageError

ArrayFunction = Callable[..., Any]


class Made(NamedTuple):
    """What a backend makes of a network: what computes, tensors or arrays → the like, and what
    tells the shapes of that without computing, `keras.KerasTensor`s → the like. What is traced for
    the shapes need not be traced again to compute, where the backend can."""

    compute: Callable
    outline: Callable


def with_tensorflow(network: keras.Model, call: Callable) -> Made:
    import tensorflow as tf

    function = tf.function(call, autograph=False)

    def outline(*specs):
        given = tree.map_structure(lambda one: tf.TensorSpec(one.shape, one.dtype), specs)
        return function.get_concrete_function(*given).structured_outputs

    return Made(function, outline)


def with_jax(network: keras.Model, call: Callable) -> Made:
    import jax

    def pure(weights, *inputs):
        with keras.StatelessScope(zip(network.variables, weights, strict=True)):
            return call(*inputs)

    # the weights are an input, not constants in the program: they are not held twice
    compiled = jax.jit(pure)

    def outline(*specs):
        given = tree.map_structure(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), specs)
        return jax.eval_shape(compiled, [v.value for v in network.variables], *given)

    return Made(lambda *inputs: compiled([v.value for v in network.variables], *inputs), outline)


def with_torch(network: keras.Model, call: Callable) -> Made:
    import torch

    return Made(torch.no_grad()(call), Outline(call).compute_output_spec)


def with_openvino(network: keras.Model, call: Callable) -> Made:
    from .on_openvino.compile import with_openvino

    return Made(with_openvino(network, call), Outline(call).compute_output_spec)


class Outline(keras.Operation):
    """A function as an operation of its own, which no network takes note of."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def call(self, *inputs):
        return self.function(*inputs)


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


def on_tensors(make: Callable[..., Made]) -> Callable[..., Made]:
    """A compiler whose functions take the backend's tensors, for functions that take arrays."""

    def made(network: keras.Model, call: Callable) -> Made:
        run, outline = make(network, call)
        return Made(
            lambda *arrays: run(*tree.map_structure(ops.convert_to_tensor, arrays)), outline
        )

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
    run, outline = COMPILERS[keras.backend.backend()](network, call)

    def compute(*arrays: Any) -> Any:
        return tree.map_structure(to_numpy, run(*arrays))

    return lambda *arrays: pass_on(Call(network.name, arrays, compute, outline))


def to_numpy(tensor: Any) -> np.ndarray:
    """NumPy has no bfloat16: all floats come as float32."""
    if isinstance(tensor, np.ndarray):
        return tensor.astype(np.float32, copy=False) if is_float(tensor) else tensor
    return ops.convert_to_numpy(ops.cast(tensor, "float32") if is_float(tensor) else tensor)


def is_float(tensor: Any) -> bool:
    """Whether it holds floats, of whatever library it is."""
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))


# --- who stands between ------------------------------------------------------------------------


class Call(NamedTuple):
    """A network that is to be called: its name, what it is given, what computes it (arrays →
    arrays), and what tells the shapes of that without computing (specs → `keras.KerasTensor`s)."""

    network: str
    arrays: tuple
    compute: ArrayFunction
    outline: Callable[..., Any]


Caller = Callable[[Call], Any]


def compute(call: Call) -> Any:
    return call.compute(*call.arrays)


CALLER: ContextVar[Caller] = ContextVar("caller", default=compute)


def pass_on(call: Call) -> Any:
    """What the network gives out, or whatever stands for it."""
    return CALLER.get()(call)


@contextmanager
def calls_go_through(caller: Caller) -> Iterator[None]:
    """Inside, in this thread, `caller` is handed every call of a network, and what it returns is
    taken for what the network gave out: so calls are counted, timed, or not made."""
    before = CALLER.set(caller)
    try:
        yield
    finally:
        CALLER.reset(before)
