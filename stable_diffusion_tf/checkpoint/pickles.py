"""torch's .bin, .ckpt and .pt files, read without torch and without running what they ask for.

A pickle is a program. Our machine runs only the instructions that torch writes, and of all the
functions that they may name only the few below, each replaced by our own; nothing is imported.
Formats: torch/serialization.py, the zip of torch ≥ 1.6 and the stream before it.
"""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import ml_dtypes
import numpy as np

from ..errors import UsageError
from .pickle_machine import Machine, Sealed, fill, run
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
MOST_PICKLED = 4 * 2**20  # bytes: names and shapes; of a training run of SD 1.x, a tenth of it
MOST_AXES = 8
MOST_REPEATED = 2**20  # numbers that a tensor may have of fewer in its storage
INNER = ("state_dict", "string_to_param")  # where a model and a web UI's embedding keep tensors
LEGACY = (0x1950A86A20F9469CFC6C, 1001, True)  # magic number, protocol, little-endian


class State(Sealed, dict):
    """collections.OrderedDict, empty or of pairs."""

    def __init__(self, pairs: list[Any] | tuple[()] = ()):
        taken = list(pairs)
        if taken:
            pairs.clear()  # a list is taken once: shared by many, it would cost each its length
        fill(self, taken)


class Module(Sealed):
    """torch.nn.ParameterDict, as the textual inversion of the paper's own code keeps its words."""

    parameters: Any = None

    def set_state(self, state: Any) -> None:
        self.parameters = state.get("_parameters")


class Leftover(Sealed):
    """A thing that training left in the file, which no tensor needs."""

    def __init__(self, *args: Any):
        pass


def parameter(tensor: Any, *rest: Any) -> Any:
    """torch._utils._rebuild_parameter: the tensor itself."""
    return tensor


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, of which tensors are views."""

    key: str
    dtype: Any
    count: int

    @property
    def bytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Tensor:
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
        """Whether it is a view at all, and lies within its storage. By a stride of 0 it may show a
        number many times, but then it is small: 4 bytes must not become gigabytes."""
        return (
            isinstance(self.storage, Storage)
            and type(self.shape) is type(self.strides) is tuple
            and len(self.shape) <= MOST_AXES
            and all(type(n) is int and n >= 0 for n in (self.start, *self.shape, *self.strides))
            and len(self.shape) == len(self.strides)
            and self.start + self.span <= self.storage.count
            and math.prod(n or 1 for n in self.shape) <= max(self.storage.count, MOST_REPEATED)
        )


HARMLESS = {  # what a pickle may name → what it gets
    "collections.OrderedDict": State,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_parameter": parameter,
    "torch.nn.modules.container.ParameterDict": Module,
    **{f"torch.{name}": name for name in STORAGES},
    **dict.fromkeys(  # in sd-v1-4.ckpt and its like, and in a ParameterDict
        (
            "builtins.set",
            "__builtin__.set",
            "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
            "numpy.dtype",
            "_codecs.encode",
        ),
        Leftover,
    ),
}


def unpickle(file: IO[bytes], place: str) -> tuple[Any, set[Storage]]:
    """The next object in the file, which then stands behind it, and the storages it views."""
    start, storages = file.tell(), set()

    def find(asked: str) -> Any:
        if asked not in HARMLESS:
            raise UsageError(
                f"{place} wants to run {asked}, which no checkpoint needs: nothing was run; "
                f"fetch the model as .safetensors"
            )
        return HARMLESS[asked]

    def keep(noted: Any) -> Any:
        if type(noted) is tuple and noted[:2] == ("module", Module):  # and its source, in old files
            return Module
        made = storage_of(noted)
        storages.add(made)
        return made

    pickled = BytesIO(file.read(MOST_PICKLED))
    try:
        found = run(pickled, Machine(find, keep), place)
    except ValueError:
        if pickled.tell() == MOST_PICKLED:
            raise UsageError(
                f"{place} lists more than any model holds; fetch it as .safetensors"
            ) from None
        raise
    file.seek(start + pickled.tell())
    return found, storages


def storage_of(noted: Any) -> Storage:
    """What torch notes of a storage: ('storage', class, key, device, count), and None in old files,
    where a view of another storage would stand."""
    if type(noted) is not tuple or len(noted) > 6:
        raise ValueError("it has a storage of an unknown kind")
    kind, storage, key, _, count, *views = noted
    if kind != "storage" or type(key) is not str or type(count) is not int or any(views):
        raise ValueError("it has a storage of an unknown kind")
    return Storage(key, STORAGES[storage], count)


def tensors_of(found: Any) -> Any:
    """A dictionary of tensors, however it was kept."""
    return found.parameters if isinstance(found, Module) else found


class TorchFile:
    """The tensors of a torch file: those of its dictionary, or of one of `INNER` in it.

    `found`: what was pickled; `offsets`: storage → its first byte in the file.
    """

    def __init__(self, place: str, found: Any, offsets: dict[Storage, int]):
        self.place, self.offsets = place, offsets
        found = found if isinstance(found, dict) else {}
        inner = (tensors_of(found.get(name)) for name in INNER)
        state = next((held for held in inner if isinstance(held, dict)), found)
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
        if f"{folder}byteorder" in members and begin(archive, f"{folder}byteorder", 7) != b"little":
            raise UsageError(f"{path} was written big-endian; save it again on another machine")
        found, storages = unpickle(
            BytesIO(begin(archive, f"{folder}data.pkl", MOST_PICKLED)), place
        )
        offsets = {}
        for storage in storages:
            member = members.get(f"{folder}data/{storage.key}")
            if member and member.compress_type == ZIP_STORED and member.file_size == storage.bytes:
                offsets[storage] = first_byte(file, member)
    return TorchFile(place, found, offsets)


def begin(archive: ZipFile, name: str, most: int) -> bytes:
    """A member's first bytes: what it unpacks to may be a thousand times what it takes."""
    if archive.getinfo(name).compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"its {name} is packed in an unknown way")
    with archive.open(name) as member:
        return member.read(most)


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
