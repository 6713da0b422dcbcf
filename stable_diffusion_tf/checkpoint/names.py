"""A Keras variable and its diffusers tensor: the same name, another order of the axes.

Keras joins the names of layers by '/', and torch allows no dot in a name, so a layer says
'down_blocks-1' where diffusers says 'down_blocks.1'.
"""

import keras
import numpy as np

SUFFIX = {"kernel": "weight", "gamma": "weight", "embeddings": "weight", "beta": "bias"}
KERNEL_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}


def address(path: str) -> str:
    """'unet/down_blocks-1/resnets-0/conv1/kernel' → 'unet.down_blocks.1.resnets.0.conv1.kernel'."""
    return path.replace("/", ".").replace("-", ".")


def variables(network: keras.Model) -> dict[str, keras.Variable]:
    """diffusers name within the part → variable, in order of execution. The network may itself
    lie inside another model, as it does in training."""
    found = {}
    for variable in network.weights:
        inside = variable.path.removeprefix(f"{network.path}/")
        *parents, last = address(inside).split(".")
        found[".".join([*parents, SUFFIX.get(last, last)])] = variable
    return found


def axes(variable: keras.Variable) -> tuple[int, ...]:
    """The order in which diffusers keeps a variable's axes: kernels (h, w, in, out) lie as
    (out, in, h, w) and (in, out) as (out, in); all else is the same."""
    rank = len(variable.shape)
    return KERNEL_AXES[rank] if variable.path.endswith("/kernel") else tuple(range(rank))


def diffusers_shape(variable: keras.Variable) -> tuple[int, ...]:
    return tuple(variable.shape[i] for i in axes(variable))


def to_diffusers(value: np.ndarray, variable: keras.Variable) -> np.ndarray:
    return value.transpose(axes(variable))


def to_keras(tensor: np.ndarray, variable: keras.Variable) -> np.ndarray:
    return tensor.transpose(np.argsort(axes(variable)))
