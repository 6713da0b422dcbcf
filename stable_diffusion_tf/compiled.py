"""A network as a function of NumPy arrays, compiled by whichever backend Keras runs on."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

ArrayFunction = Callable[..., np.ndarray]


def with_tensorflow(network: keras.Model) -> Callable:
    import tensorflow as tf

    return tf.function(lambda *inputs: network(*inputs, training=False), autograph=False)


def with_jax(network: keras.Model) -> Callable:
    import jax

    # the weights are an input, not constants in the program: they are not held twice
    call = jax.jit(lambda weights, *inputs: network.stateless_call(weights, [], *inputs)[0])
    return lambda *inputs: call([v.value for v in network.trainable_variables], *inputs)


def with_torch(network: keras.Model) -> Callable:
    import torch

    return torch.no_grad()(network)


COMPILERS = {"tensorflow": with_tensorflow, "jax": with_jax, "torch": with_torch}


def compiled(network: keras.Model) -> ArrayFunction:
    """arrays → float32 array. Every new shape is compiled once, with all sizes static."""
    call = COMPILERS[keras.backend.backend()](network)

    def run(*arrays: np.ndarray) -> np.ndarray:
        made = call(*(ops.convert_to_tensor(a) for a in arrays))
        return ops.convert_to_numpy(ops.cast(made, "float32"))

    return run
