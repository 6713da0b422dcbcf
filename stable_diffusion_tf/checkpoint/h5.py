"""Keras' h5 files of weights, as Keras 2 and as Keras 3 lay them out."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import h5py
import ml_dtypes
import numpy as np

from ..errors import UsageError
from .files import REFUSALS, kind

SIGNS = {  # network → the shape of an array that only it has; None: any size
    "text_encoder": (77, None),  # positions
    "unet": (3, 3, None, 4),  # conv_out
    "encoder": (1, 1, 8, 8),  # quant_conv
    "decoder": (1, 1, 4, 4),  # post_quant_conv
}


class Array(NamedTuple):
    """An array in a file, not read yet."""

    file: Path
    place: str
    shape: tuple[int, ...]


class Weights(NamedTuple):
    """The arrays of a file by their paths. `layout`: 'keras 2', where they are in the order of
    the layers, or 'keras 3', where only the paths tell what they are."""

    place: Path
    layout: str
    arrays: dict[str, Array]


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, closed again after; UsageError says what is wrong with it."""
    try:
        found = kind(path)
        if found != "h5":
            raise UsageError(f"{path} {REFUSALS.get(found, f'is no h5 file but {found}')}")
        with h5py.File(path) as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise UsageError(f"{path} is no whole h5 file ({error}); fetch it again") from None


def open_weights(path: Path) -> Weights:
    """Raises UsageError where the file is no whole h5 file."""
    with opened(path) as file:
        layout = "keras 3" if "layers" in file else "keras 2"
        found = keras3_arrays(file) if "layers" in file else keras2_arrays(file)
        arrays = {name: Array(path, data.name, data.shape) for name, data in found.items()}
        return Weights(path, layout, arrays)


def keras2_arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Layer by layer, as the attributes list them; whatever they do not list is no weight. A whole
    model has its weights in a group."""
    group = file.get("model_weights", file)
    layers = {name: group[name] for name in listed(group, "layer_names")}
    return {
        f"{name}/{weight}": layer[weight]
        for name, layer in layers.items()
        for weight in listed(layer, "weight_names")
    }


def listed(group: h5py.Group, name: str) -> list[str]:
    """The strings of an attribute. One too large for HDF5 lies in chunks: name0, name1 …"""
    chunks = [key for key in group.attrs if re.fullmatch(rf"{name}\d*", key)]
    chunks.sort(key=lambda key: int(key.removeprefix(name) or 0))
    values = [value for chunk in chunks for value in group.attrs[chunk]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def keras3_arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """By path. What lies outside of layers/ is an optimizer's."""
    found = {}
    file["layers"].visititems(lambda path, item: found.update({f"layers/{path}": item}))
    return {path: item for path, item in found.items() if isinstance(item, h5py.Dataset)}


def read_array(array: Array) -> np.ndarray:
    """bfloat16 lies there as raw bytes, and an attribute says so."""
    with opened(array.file) as file:
        data = file[array.place]
        value = data[()]
        return value.view(ml_dtypes.bfloat16) if data.attrs.get("dtype") == "bfloat16" else value


def readable(folder: Path) -> Iterator[Weights]:
    """Those .h5 files of a folder that are whole."""
    for path in sorted(folder.glob("*.h5")):
        with suppress(UsageError):
            yield open_weights(path)


def network_in(weights: Weights) -> str | None:
    """'text_encoder', 'unet', 'encoder' or 'decoder', by a shape that only it has."""
    shapes = [array.shape for array in weights.arrays.values()]
    found = (name for name, sign in SIGNS.items() if any(fits(shape, sign) for shape in shapes))
    return next(found, None)


def fits(shape: Sequence[int], sign: Sequence[int | None]) -> bool:
    return len(shape) == len(sign) and all(s in (n, None) for n, s in zip(shape, sign, strict=True))
