"""Tensors by name, read one at a time when asked for: what all formats offer, and safetensors."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from ..backend import chosen_backend
from ..errors import UsageError
from .mapped import SMALLEST, map_numbers

DTYPES = {  # safetensors' names
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

ALIGNMENT = 64  # bytes


class Source(Protocol):
    """The tensors of one part by their diffusers names. `place`: the file, as errors name it."""

    place: str

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape, in torch's order of the axes."""

    def get(self, key: str) -> np.ndarray:
        """The tensor in the dtype of the file, read now; nothing of it is kept."""


class Checkpoint(Protocol):
    """A whole model on disk, in some format."""

    place: Path

    def config(self, part: str) -> dict[str, Any]:
        """diffusers' config.json of 'text_encoder', 'unet' or 'vae', and of the 'scheduler',
        which is {} where the format has none."""

    def source(self, part: str) -> Source:
        """The tensors of 'text_encoder', 'unet' or 'vae' (encoder and decoder in one)."""


class SafetensorsFile:
    """The tensors of a safetensors file.

    The library's memory map would leave every page that is read in the memory of the process, and
    so double its peak. Here the library only checks the header; the bytes are read by offset, or
    mapped where the backend computes with them as they lie in the file.
    """

    def __init__(self, path: Path):
        self.place = str(path)
        try:
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise UsageError(
                f"{path} is no whole safetensors file ({error}); fetch it again"
            ) from None
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self.header = json.loads(file.read(length))
        self.start = 8 + length
        self.header.pop("__metadata__", None)
        strange = {v["dtype"] for v in self.header.values()} - DTYPES.keys()
        if strange:
            raise UsageError(
                f"{path} holds numbers as {', '.join(sorted(strange))}, which are not read here; "
                f"fetch it in float32 or float16"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(entry["shape"]) for name, entry in self.header.items()}

    def get(self, key: str) -> np.ndarray:
        entry = self.header[key]
        (first, last), count = entry["data_offsets"], math.prod(entry["shape"])
        maps = chosen_backend() == "openvino" and last - first >= SMALLEST
        read = map_numbers if maps else read_numbers
        numbers = read(self.place, DTYPES[entry["dtype"]], count, self.start + first)
        return numbers.reshape(entry["shape"])


def read_numbers(place: str, dtype: Any, count: int, offset: int) -> np.ndarray:
    """(count,) numbers that begin at the byte `offset` of a file."""
    numbers = aligned(count, dtype)
    with open(place, "rb", buffering=0) as file:
        file.seek(offset)
        read = file.readinto(numbers.view(np.uint8))
    if read < numbers.nbytes:
        raise UsageError(f"{place} has become shorter while it was read; fetch it again")
    return numbers


def aligned(count: int, dtype: Any) -> np.ndarray:
    """An array (count,), not filled, at an address that backends take over without a copy."""
    size = count * np.dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype)


class Renamed:
    """Tensors of a source under other names. `names`: name here → name there, all else is left
    out; `reshaped`: name here → its shape, where it is another one."""

    def __init__(
        self,
        source: Source,
        names: Mapping[str, str],
        reshaped: Mapping[str, tuple[int, ...]] | None = None,
    ):
        self.place, self.source, self.names = source.place, source, names
        there = source.shapes()
        self.sizes = {here: there[name] for here, name in names.items()} | dict(reshaped or {})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.sizes)

    def get(self, key: str) -> np.ndarray:
        return self.source.get(self.names[key]).reshape(self.sizes[key])


def renamed(
    place: str, names: Iterable[str], other_names: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Name here → name in the file. `other_names`: patterns, replaced one after the other.

    Raises UsageError where two names in the file mean the same tensor.
    """
    found: dict[str, str] = {}
    for name in names:
        here = name
        for pattern, replacement in other_names:
            here = re.sub(pattern, replacement, here)
        if here in found:
            raise UsageError(
                f"{place} holds {here} twice, as {found[here]} and as {name}; "
                f"save it with one of them"
            )
        found[here] = name
    return found
