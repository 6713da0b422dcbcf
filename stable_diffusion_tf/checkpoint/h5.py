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
    except UsageError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path} is no whole h5 file ({error}); fetch it again") from None


def open_weights(path: Path) -> Weights:
    """Raises UsageError where the file is no whole h5 file."""
    with opened(path) as file:
        outside = file.visititems_links(is_outside)
        if outside:
            raise ValueError(f"its {outside} lies in another file")
        layout = "keras 3" if "layers" in file else "keras 2"
        found = keras3_arrays(file) if "layers" in file else keras2_arrays(file)
        arrays = {name: Array(path, data.name, data.shape) for name, data in found.items()}
        return Weights(path, layout, arrays)


def is_outside(path: str, link: object) -> str | None:
    """The path of a link into another file, which may be a pipe: None of all else."""
    return path if isinstance(link, h5py.ExternalLink) else None


def group_at(group: h5py.Group, name: str) -> h5py.Group:
    found = group[name]
    if not isinstance(found, h5py.Group):
        raise ValueError(f"its {name} is no group")
    return found


def array_at(group: h5py.Group, name: str) -> h5py.Dataset:
    found = group[name]
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise ValueError(f"its {name} is no array")
    if found.external or found.is_virtual:
        raise ValueError(f"its {name} lies in another file")
    if found.dtype.kind not in "fiu" and not is_bfloat16(found):
        raise ValueError(f"its {name} holds no numbers")
    return found


def is_bfloat16(data: h5py.Dataset) -> bool:
    """It lies there as raw bytes, and an attribute says so."""
    return data.dtype.itemsize == 2 and data.attrs.get("dtype") == "bfloat16"


def keras2_arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Layer by layer, as the attributes list them; whatever they do not list is no weight. A whole
    model has its weights in a group."""
    group = group_at(file, "model_weights") if "model_weights" in file else file
    layers = {name: group_at(group, name) for name in listed(group, "layer_names")}
    return {
        f"{name}/{weight}": array_at(layer, weight)
        for name, layer in layers.items()
        for weight in listed(layer, "weight_names")
    }


def listed(group: h5py.Group, name: str) -> list[str]:
    """The strings of an attribute. One too large for HDF5 lies in chunks: name0, name1 …"""
    chunks = [key for key in group.attrs if re.fullmatch(rf"{name}\d{{0,4}}", key)]
    chunks.sort(key=lambda key: int(key.removeprefix(name) or 0))
    values = [value for chunk in chunks for value in np.atleast_1d(group.attrs[chunk])]
    if not all(isinstance(value, str | bytes) for value in values):
        raise ValueError(f"its {name} are no names")
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def keras3_arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """By path. What lies outside of layers/ is an optimizer's."""
    found = {}
    layers = group_at(file, "layers")
    layers.visititems(lambda path, item: found.update({f"layers/{path}": item}))
    return {path: array_at(file, path) for path in found if isinstance(found[path], h5py.Dataset)}


def read_array(array: Array) -> np.ndarray:
    with opened(array.file) as file:
        data = file[array.place]
        value = data[()]
        return value.view(ml_dtypes.bfloat16) if is_bfloat16(data) else value


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
