"""torch's .bin, .ckpt and .pt files, read without torch and without running what they ask for.

A pickle is a program. This reader takes only the instructions that torch writes, and of all the
functions that they may name only the few below, each replaced by our own; nothing is imported.
Formats: torch/serialization.py, the zip of torch ≥ 1.6 and the stream before it.
"""

import pickle
import pickletools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import ml_dtypes
import numpy as np

from ..errors import UsageError
from .tensors import read_numbers

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
OPCODES = """
    PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID
    NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
    BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES
    EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE
"""  # those that pickle emits for containers, numbers, text and globals
INNER = ("state_dict", "string_to_param")  # where a model and a web UI's embedding keep tensors
LEGACY = (0x1950A86A20F9469CFC6C, 1001, True)  # magic number, protocol, little-endian


class Sealed:
    """What a pickle may make: the state that it wants to give it is let go."""

    def __setstate__(self, state: Any) -> None:
        pass


class State(Sealed, dict):
    """collections.OrderedDict."""


class Leftover(Sealed):
    """A thing that training left in the file, which no tensor needs."""

    def __init__(self, *args: Any):
        pass


class Parameter(Sealed):
    """torch._utils._rebuild_parameter: the tensor itself."""

    def __new__(cls, tensor: Any, *rest: Any) -> Any:
        return tensor


@dataclass(frozen=True)
class Storage(Sealed):
    """Numbers in a row, of which tensors are views."""

    key: str
    dtype: Any
    count: int

    @property
    def bytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Tensor(Sealed):
    """torch._utils._rebuild_tensor_v2: a view of a storage, measured in numbers, not bytes."""

    storage: Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: Any = None
    hooks: Any = None
    metadata: Any = None

    @property
    def span(self) -> int:
        """How many numbers of the storage lie between its first and its last, both counted."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))

    @property
    def fits(self) -> bool:
        """Whether it is a view at all, and lies within its storage."""
        return (
            isinstance(self.storage, Storage)
            and type(self.shape) is type(self.strides) is tuple
            and all(type(n) is int and n >= 0 for n in (self.start, *self.shape, *self.strides))
            and len(self.shape) == len(self.strides)
            and self.start + self.span <= self.storage.count
        )


HARMLESS = {  # what a pickle may name → what it gets
    "collections.OrderedDict": State,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_parameter": Parameter,
    **{f"torch.{name}": name for name in STORAGES},
    **dict.fromkeys(  # in sd-v1-4.ckpt and its like
        (
            "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
            "numpy.dtype",
            "_codecs.encode",
        ),
        Leftover,
    ),
}


class Unpickler(pickle.Unpickler):
    """Makes nothing but containers, numbers, text and what is `HARMLESS`."""

    def __init__(self, file: IO[bytes], place: str):
        super().__init__(file)
        self.place = place
        self.storages: set[Storage] = set()

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked not in HARMLESS:
            raise UsageError(
                f"{self.place} wants to run {asked}, which no checkpoint needs: nothing was run; "
                f"fetch the model as .safetensors"
            )
        return HARMLESS[asked]

    def persistent_load(self, found: Any) -> Storage:
        kind, storage, key, _, count, *views = found
        if kind != "storage" or type(key) is not str or type(count) is not int or any(views):
            raise ValueError("it has a storage of an unknown kind")
        made = Storage(key, STORAGES[storage], count)
        self.storages.add(made)
        return made


def unpickle(file: IO[bytes], place: str) -> tuple[Any, set[Storage]]:
    """The next object in the file, which then stands behind it, and the storages it views."""
    start, known = file.tell(), OPCODES.split()
    for opcode, _, _ in pickletools.genops(file):
        if opcode.name not in known:
            raise UsageError(
                f"{place} has the pickle instruction {opcode.name}, which no weights need: nothing "
                f"was run; fetch the model as .safetensors"
            )
    file.seek(start)
    unpickler = Unpickler(file, place)
    return unpickler.load(), unpickler.storages


class TorchFile:
    """The tensors of a torch file: those of its dictionary, or of one of `INNER` in it.

    `found`: what was pickled; `offsets`: storage → its first byte in the file.
    """

    def __init__(self, place: str, found: Any, offsets: dict[Storage, int]):
        self.place, self.offsets = place, offsets
        found = found if isinstance(found, dict) else {}
        state = next((found[k] for k in INNER if isinstance(found.get(k), dict)), found)
        self.tensors = {
            name: tensor
            for name, tensor in state.items()
            if isinstance(name, str) and isinstance(tensor, Tensor)
        }
        if not self.tensors:
            raise UsageError(f"{place} holds no tensors by name; fetch the model as .safetensors")
        for name, tensor in self.tensors.items():
            if not tensor.fits or tensor.storage not in offsets:
                raise UsageError(f"{place} lacks the numbers of {name}; fetch it again")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def get(self, key: str) -> np.ndarray:
        tensor = self.tensors[key]
        dtype = np.dtype(tensor.storage.dtype)
        offset = self.offsets[tensor.storage] + tensor.start * dtype.itemsize
        numbers = read_numbers(self.place, dtype, tensor.span, offset)
        steps = [step * dtype.itemsize for step in tensor.strides]
        view = np.lib.stride_tricks.as_strided(numbers, tensor.shape, steps)
        return np.ascontiguousarray(view).reshape(tensor.shape)


@contextmanager
def telling(place: str) -> Iterator[None]:
    """A broken file raises whatever its bytes run into; the user is told one thing."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{place} is no whole torch file ({error or type(error).__name__}); fetch it again, "
            f"best as .safetensors"
        ) from None


def open_zip(path: Path) -> TorchFile:
    """A file of torch ≥ 1.6: a zip of data.pkl and of one member for each storage."""
    place = str(path)
    with telling(place), ZipFile(path) as archive, open(path, "rb") as file:
        members = {member.filename: member for member in archive.infolist()}
        folders = [n.removesuffix("data.pkl") for n in members if n.endswith("data.pkl")]
        if not folders:
            raise UsageError(
                f"{path} is a zip, but not of torch; unpack it and name what was in it"
            )
        folder = folders[0]
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise UsageError(f"{path} was written big-endian; save it again on another machine")
        found, storages = unpickle(BytesIO(archive.read(f"{folder}data.pkl")), place)
        offsets = {}
        for storage in storages:
            member = members.get(f"{folder}data/{storage.key}")
            if member and member.compress_type == ZIP_STORED and member.file_size == storage.bytes:
                offsets[storage] = first_byte(file, member)
    return TorchFile(place, found, offsets)


def first_byte(file: IO[bytes], member: ZipInfo) -> int:
    """Where a member's own bytes begin: behind its local header, whose padding the directory at
    the zip's end does not know. APPNOTE.TXT of PKWARE, section 4.3.7."""
    file.seek(member.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return member.header_offset + 30 + name + extra


def open_stream(path: Path) -> TorchFile:
    """A file of torch before 1.6: pickles, and behind them the storages, each after its count."""
    place = str(path)
    with telling(place), open(path, "rb") as file:
        magic, protocol, system = (unpickle(file, place)[0] for _ in range(3))
        if (magic, protocol, system["little_endian"]) != LEGACY:
            raise ValueError("its header is not torch's")
        found, storages = unpickle(file, place)
        by_key = {storage.key: storage for storage in storages}
        offsets = {}
        for key in unpickle(file, place)[0]:
            storage, count = by_key[key], int.from_bytes(file.read(8), "little")
            end = file.tell() + storage.bytes
            if count == storage.count and end <= path.stat().st_size:
                offsets[storage] = file.tell()
            file.seek(end)
    return TorchFile(place, found, offsets)
