"""In what weights are kept, and computed with: the precisions that a model is loaded in."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
from keras import tree

from .errors import UsageError

BYTES = {"float32": 4, "bfloat16": 2, "float16-storage": 2}  # precision → of a weight in memory
BYTES_ON_OPENVINO = BYTES | {"float16-storage": 4, "int8-storage": 1}
ON_OPENVINO = "add --backend openvino, or put KERAS_BACKEND=openvino in front of the command"


def precisions(backend: str) -> dict[str, int]:
    """What there is on a backend, and the bytes of a weight in each."""
    return BYTES_ON_OPENVINO if backend == "openvino" else BYTES


def check_precision(name: str) -> str:
    """The precision, if the backend has it. Raises UsageError."""
    backend = keras.backend.backend()
    known = precisions(backend)
    if name in BYTES_ON_OPENVINO and name not in known:
        raise UsageError(f"{name} is OpenVINO's, not {backend}'s; {ON_OPENVINO}")
    if name not in known:
        raise UsageError(f"no precision {name!r}; choose {', '.join(known)}")
    return name


def kept_in(name: str, place: str) -> str:
    """The precision of a part, by its folder: the VAE's convolutions over whole pictures would
    take more memory place by place than int8 saves."""
    return "float32" if (name, place) == ("int8-storage", "vae") else name


class StoredAsFloat16(keras.DTypePolicy):
    """Weights kept in float16, half the memory, and widened as they are used: all arithmetic is
    in float32."""

    def __init__(self):
        super().__init__("float32")

    @property
    def variable_dtype(self) -> str:
        return "float16"


class Packed(keras.DTypePolicy):
    """Weights and arithmetic that are float32 for Keras, and for OpenVINO are not quite."""

    def __init__(self):
        super().__init__("float32")


class PackedAsBfloat16(Packed):
    """OpenVINO packs the weights in bfloat16 and computes in it."""


class RoundedToFloat16(Packed):
    """Weights rounded as float16 would; OpenVINO keeps none in float16, it would widen them all."""


class StoredAsInt8(Packed):
    """Kernels in int8, a scale for each output; all arithmetic is in float32."""


FOR_OPENVINO = {
    "bfloat16": PackedAsBfloat16,
    "float16-storage": RoundedToFloat16,
    "int8-storage": StoredAsInt8,
}


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Layers made inside compute and store as said: 'float32', 'bfloat16' (both in bfloat16),
    'float16-storage', on OpenVINO 'int8-storage', or any Keras dtype policy ('mixed_bfloat16'
    keeps weights in float32)."""
    before, on_openvino = keras.config.dtype_policy(), keras.backend.backend() == "openvino"
    ours = FOR_OPENVINO if on_openvino else {"float16-storage": StoredAsFloat16}
    keras.config.set_dtype_policy(ours[policy]() if policy in ours else policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def in_turn(policy: keras.DTypePolicy, inputs: Any) -> AbstractContextManager:
    """What is computed inside waits for the inputs, if weights are to be widened.

    TensorFlow starts at once whatever waits for nothing, so all weights would be widened in the
    first moment, and be there twice.
    """
    if not isinstance(policy, StoredAsFloat16) or keras.backend.backend() != "tensorflow":
        return nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([x for x in tree.flatten(inputs) if tf.is_tensor(x)])
