"""The loader: every variable found once, in its shape, finite, and nothing left over."""

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from ..errors import UsageError
from ..keras_private import give_value, skeleton
from ..machine import memory
from .mapped import given_back_meanwhile
from .names import axes, diffusers_shape, to_keras, variables
from .tensors import Source

SHOWN = 5  # names of each kind in an error
LESS = {"openvino": ", or quarter it with --precision int8-storage"}  # backend → a way out
HALF = ", or halve it with --precision float16-storage"


def load(network: keras.Model, source: Source, ignore: Sequence[str] = ()) -> None:
    """Assign every variable of the network from the source, one at a time.

    `ignore`: patterns of names that the source may hold besides. Raises UsageError naming all
    that is missing, unexpected, misshapen or not finite; the network is then untouched.
    """
    check_names(network, source, ignore)
    check_numbers(network, source)
    for key, variable in variables(network).items():
        variable.assign(value_of(variable, source.get(key), network.dtype_policy))


def load_new(
    make: Callable[[], keras.Model], source: Source, ignore: Sequence[str] = ()
) -> keras.Model:
    """The network that `make` builds, each variable born with its value from the source: to draw
    860 million random numbers only to replace them takes half a minute and twice the memory.

    Raises UsageError as `load` does.
    """
    network = skeleton(make)
    check_names(network, source, ignore)
    with given_back_meanwhile():
        for key, variable in variables(network).items():
            tensor = source.get(key)
            if not fits(tensor, variable.dtype):
                check_numbers(network, source)  # which names them all
            give_value(variable, partial(value_of, variable, tensor, network.dtype_policy))
    return network


def check_names(network: keras.Model, source: Source, ignore: Sequence[str]) -> None:
    """Raise UsageError naming all tensors that are missing, unexpected or misshapen."""
    wanted, shapes = variables(network), source.shapes()
    refuse(
        f"{source.place} does not fit its config.json",
        missing=[k for k in wanted if k not in shapes],
        unexpected=[
            k for k in shapes if k not in wanted and not any(fnmatch(k, p) for p in ignore)
        ],
        misshapen=[
            f"{k} {shapes[k]}, not {diffusers_shape(v)}"
            for k, v in wanted.items()
            if k in shapes and shapes[k] != diffusers_shape(v)
        ],
    )


def check_numbers(network: keras.Model, source: Source) -> None:
    """Raise UsageError naming all tensors with a number that is not finite."""
    wanted = variables(network)
    refuse(
        f"{source.place} holds NaN or infinite numbers; fetch it again, or in float32",
        **{"not finite": [k for k, v in wanted.items() if not fits(source.get(k), v.dtype)]},
    )


def check_memory(source: Source, size: int) -> int:
    """The bytes that a part's weights need at `size` bytes each. Raises UsageError where they are
    more than is free."""
    needed = size * sum(math.prod(shape) for shape in source.shapes().values())
    available = memory().available
    if available is not None and needed > available:
        way_out = LESS.get(keras.backend.backend(), HALF) if size == 4 else ""
        raise UsageError(
            f"{source.place} needs {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are "
            f"free; close other programs{way_out}"
        )
    return needed


def value_of(variable: keras.Variable, tensor: np.ndarray, policy: keras.DTypePolicy) -> Any:
    """A tensor, axes as diffusers has them, as the variable's value. Where the axes must be turned,
    the backend does it, on all cores: NumPy takes several times as long."""
    if keras.backend.backend() == "openvino":
        from ..on_openvino.weights import constant_of

        return constant_of(variable, tensor, policy)
    value = to_keras(tensor, variable)
    if value.flags.c_contiguous:
        return ops.convert_to_tensor(value, variable.dtype)
    turned = np.argsort(axes(variable)).tolist()
    return ops.transpose(ops.convert_to_tensor(tensor, variable.dtype), turned)


def fits(tensor: np.ndarray, dtype: str) -> bool:
    """Whether all numbers are finite in the dtype that they are to be kept in: float16 ends at
    65,504."""
    with np.errstate(over="ignore", invalid="ignore"):
        kept = tensor.astype(np.float16) if dtype == "float16" else tensor
        total = np.sum(kept, dtype=np.float32)  # a NaN or infinity stays one; quick
    return bool(np.isfinite(total) or np.isfinite(kept).all())


def refuse(what: str, **findings: list[str]) -> None:
    """Raise UsageError if there is any finding."""
    if any(findings.values()):
        told = "; ".join(f"{len(v)} {kind}: {some(v)}" for kind, v in findings.items() if v)
        raise UsageError(f"{what}: {told}")


def some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
