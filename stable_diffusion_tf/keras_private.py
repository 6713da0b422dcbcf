"""All that this project takes from Keras, and from TensorFlow below it, and that has no public name
there. `make keras` holds it against the lowest and the highest Keras that requirements.txt
allows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

UNBORN = "uninitialized_variables"  # what Keras calls its list of variables without values


def skeleton(make: Callable[[], keras.Model]) -> keras.Model:
    """The network that `make` builds, its variables without values: it can be called symbolically.
    Inside a stateless scope Keras makes such variables, and notes in a list which they are."""
    global_state.set_global_attribute(UNBORN, Hollow())
    try:
        with keras.StatelessScope(initialize_variables=False):
            return make()
    finally:  # were one left in the list, every later scope would stumble over it
        global_state.set_global_attribute(UNBORN, [])


class Hollow(list):
    """Where Keras notes the variables without values. A symbolic call traces how each would be
    drawn, which for random numbers takes seconds in all; zeros are traced in no time."""

    def append(self, variable: keras.Variable) -> None:
        variable._initializer = ops.zeros
        super().append(variable)


def give_value(variable: keras.Variable, make: Callable[[], Any]) -> None:
    """Have a variable of a skeleton born with the value that `make` gives."""
    variable._initializer = lambda shape, dtype: make()
    variable._deferred_initialize()


def openvino_inputs(arrays: Sequence[np.ndarray]) -> tuple[list, list]:
    """Of a graph of OpenVINO's, an input for each array's shape and dtype, and the same as Keras
    tensors, for a symbolic call."""
    from keras.src.backend.openvino.core import OPENVINO_DTYPES
    from openvino import opset15 as opset

    made = [opset.parameter([*a.shape], OPENVINO_DTYPES[str(a.dtype)]) for a in arrays]
    return made, [openvino_value(one) for one in made]


def openvino_constant(array: np.ndarray) -> Any:
    """An array that can be written to as a constant of a graph, which lies where the array does."""
    from openvino import opset15 as opset

    return openvino_value(opset.constant(array, shared_memory=True))


def openvino_value(node: Any) -> Any:
    """A node of a graph of OpenVINO's as a Keras tensor."""
    from keras.src.backend.openvino.core import OpenVINOKerasTensor

    OpenVINOKerasTensor.__array_ufunc__ = None  # array * tensor is left to it, as elsewhere
    return OpenVINOKerasTensor(node.output(0))


def all_layers(network: keras.Model) -> list[keras.Layer]:
    """Every layer inside, itself first."""
    return [*network._flatten_layers()]


@contextmanager
def gradients_forgotten() -> Iterator[None]:
    """TensorFlow notes the gradient of whatever is recomputed in a global table, and with it every
    weight of the network, which then could never be released: what came in is taken out again."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    from tensorflow.python.framework.ops import gradient_registry

    table = gradient_registry._registry
    before = {*table}
    try:
        yield
    finally:
        for name in {*table} - before:
            if name.startswith("CustomGradient"):
                del table[name]
