"""The files of a film: named float32 arrays as safetensors, and JSON; each is whole or not there.

Near its beginning every file bears a CRC-32 of all its bytes, taken while the eight digits of the
CRC itself were zeros, so that a flip of any bit is found. The format of the arrays, which every
safetensors library reads: huggingface.co/docs/safetensors.
"""

import json
import math
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from stable_diffusion_tf.checkpoint.tensors import read_numbers
from stable_diffusion_tf.disk import whole_file
from stable_diffusion_tf.errors import UsageError

FACTS, TEXT, DECODED = "film.json", "text.safetensors", "decode.safetensors"
FRAMES, IMAGE = "frames", "image.png"

UNSEALED = b'"crc32": "00000000"'
SEAL = re.compile(rb'(?<="crc32": ")[0-9a-f]{8}(?=")')
HEAD = 64  # bytes, within which the seal lies
NAME = re.compile(r"[^/\\\x00-\x1f]+").fullmatch  # of an array: in an .npz, that of a file
PIECE = 2**20  # bytes, read at a time
MOST = 2**24  # bytes of film.json or of the head of a frame: some thousand times what they take
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
BROKEN_PNG = (  # what Pillow raises
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


class Unfit(ValueError):
    """What a file says that no film says: the end of a sentence that begins with its name."""


class NoJson(Unfit):
    """Not JSON at all, as after a flip of a bit."""


class Absent(UsageError, KeyError):
    """A name that is not there; `in` and `get` of a mapping take it for any KeyError."""

    __str__ = UsageError.__str__  # a KeyError would say it in quotes


class Tensors(Mapping[str, np.ndarray]):
    """The arrays of one file by their names: each is read when it is asked for, and not kept.
    Raises `Unfit` and OSError."""

    def __init__(self, path: Path):
        self.path = path
        with open_regular(path) as file:
            room = os.fstat(file.fileno()).st_size - 8
            length = int.from_bytes(file.read(8), "little")
            if length > min(room, MOST):
                raise Unfit(f"has a head of {length} bytes")
            self.places = read_json(file.read(length))
        self.start = 8 + length
        self.told = told_in(self.places)
        for name, entry in self.places.items():
            check_entry(name, entry, room - length)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.places:
            raise Absent(f"{self.path} holds no {name!r}; it holds {', '.join(self.places)}")
        shape, (start, _) = self.shape(name), self.places[name]["data_offsets"]
        numbers = read_numbers(str(self.path), np.float32, math.prod(shape), self.start + start)
        return numbers.reshape(shape)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, without reading it."""
        return tuple(self.places[name]["shape"])


class Frame(Tensors):
    """What one step held: its `index`, counted from 0, its timestep `t`, and the arrays."""

    @property
    def index(self) -> int:
        return int(self.told["index"])

    @property
    def t(self) -> int:
        return int(self.told["t"])


def frame_path(folder: Path, index: int) -> Path:
    return folder / FRAMES / f"{index:03d}.safetensors"


def steps_there(folder: Path) -> list[int]:
    """The steps that have a frame, whole or not."""
    try:
        names = os.listdir(folder / FRAMES)
    except OSError:
        return []
    found = [int(name[:-12]) for name in names if re.fullmatch(r"[0-9]+\.safetensors", name)]
    return sorted(i for i in found if frame_path(folder, i).name in names)


# --- reading what anybody may have written -----------------------------------------------------


def open_regular(path: Path) -> BinaryIO:
    """A file for reading, if it is one: a pipe would let nobody go. Raises OSError, `Unfit`."""
    handle = os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Unfit("is no regular file")
    return open(handle, "rb")


def read_json(text: bytes) -> dict[str, Any]:
    """The object that JSON holds, each name in it once and each number finite. Raises `Unfit` where
    it is JSON but not that, and `NoJson` where it is none."""
    try:
        held = json.loads(
            text, object_pairs_hook=named_once, parse_constant=refuse, parse_float=finite
        )
    except RecursionError:
        raise Unfit("is nested too deep") from None
    except Unfit:
        raise
    except ValueError:
        raise NoJson("is no JSON") from None
    if not isinstance(held, dict):
        raise Unfit("is no JSON object")
    return held


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len({*names}) < len(names):
        raise Unfit(f"says {shown(max(names, key=names.count))} twice")
    return dict(pairs)


def refuse(constant: str) -> None:
    raise Unfit(f"holds {constant}, which is no number of JSON")


def finite(number: str) -> float:
    if not math.isfinite(made := float(number)):
        raise NoJson(f"holds the number {number[:20]}, which is too large")
    return made


def shown(text: object) -> str:
    """What a file says, fit for one line of a terminal."""
    told = ascii(text)
    return told if len(told) <= 80 else f"{told[:79]}…"


def told_in(places: dict[str, Any]) -> dict[str, str]:
    """Take out of a head of safetensors what it says beside the arrays."""
    told = places.pop("__metadata__", None)
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise Unfit("has no __metadata__ of texts")
    return told


def check_entry(name: str, entry: Any, room: int) -> None:
    """Raise `Unfit` for an array that does not lie within so many bytes as it says."""
    match entry:
        case {"dtype": "F32", "shape": [*shape], "data_offsets": [start, end]}:
            counts = all(type(n) is int and n >= 0 for n in [*shape, start, end])
            known = counts and len(shape) <= 32 and math.prod(n or 1 for n in shape) < 2**60
            if known and end <= room and end - start == 4 * math.prod(shape) and NAME(name):
                return
    raise Unfit(f"has no whole array of float32 under {shown(name)}")


# --- writing -----------------------------------------------------------------------------------


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray], **told: int) -> None:
    """Save arrays of any shape as float32, and beside them what is told. Raises OSError."""
    arrays = {name: np.asarray(array, np.float32, order="C") for name, array in arrays.items()}
    header = {"__metadata__": {"crc32": "00000000"} | {key: str(n) for key, n in told.items()}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    write_sealed(path, len(text).to_bytes(8, "little") + text, [*arrays.values()])


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Save facts as JSON that a person can read. Raises OSError."""
    facts = {"crc32": "00000000"} | dict(facts)
    text = json.dumps(facts, indent=2, ensure_ascii=False, default=np.generic.item) + "\n"
    write_sealed(path, text.encode("utf-8", "surrogatepass"), [])


def write_sealed(path: Path, head: bytes, arrays: Sequence[np.ndarray]) -> None:
    """Write the head, its first zeros replaced by the CRC-32, and the arrays after it."""
    crc = zlib.crc32(head)
    for array in arrays:
        crc = zlib.crc32(array, crc)
    with whole_file(path) as fresh, open(fresh, "wb") as file:
        file.write(head.replace(UNSEALED, b'"crc32": "%08x"' % crc, 1))
        for array in arrays:
            file.write(array)


def write_image(path: Path, image: np.ndarray) -> None:
    """Save a picture, (H, W, 3) uint8, as PNG, which has checksums of its own. Raises OSError."""
    with whole_file(path) as fresh, open(fresh, "wb") as file:
        Image.fromarray(image).save(file, "PNG")


@contextmanager
def telling(place: Path) -> Iterator[None]:
    """Say in one line that the disk will not take it."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write {place}: {error.strerror}; what was finished there opens; free some "
            f"disk or name another place"
        ) from None


# --- looking for damage ------------------------------------------------------------------------


def looked_at(find: Callable[[Path], str | None]) -> Callable[[Path], str | None]:
    """The same, which says of a file too why it cannot be read at all."""

    def fault_of(path: Path) -> str | None:
        try:
            return find(path)
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        except Unfit as error:
            return str(error)

    return fault_of


@looked_at
def fault(path: Path) -> str | None:
    """What is wrong with a sealed file, or None. It is read in small pieces."""
    with open_regular(path) as file:
        return None if matches_seal(file) else "does not match its checksum"


@looked_at
def fault_of_facts(path: Path) -> str | None:
    """The same for film.json, which must be JSON."""
    if not (wrong := fault(path)):
        with open_regular(path) as file:
            read_json(file.read())
    return wrong


def matches_seal(file: BinaryIO) -> bool:
    head = file.read(HEAD)
    seal = SEAL.search(head)
    if not seal:
        return False
    crc = zlib.crc32(head[: seal.start()] + b"0" * 8 + head[seal.end() :])
    while piece := file.read(PIECE):
        crc = zlib.crc32(piece, crc)
    return seal[0] == b"%08x" % crc


@looked_at
def fault_of_tensors(path: Path) -> str | None:
    """The same for a file of arrays, whose head must tell where they lie."""
    wrong = fault(path)
    if not wrong:
        Tensors(path)
    return wrong


@looked_at
def fault_of_frame(path: Path) -> str | None:
    """The same for a frame, which must also be that of the step that it is named after."""
    if wrong := fault(path):
        return wrong
    told = Frame(path).told
    if not all(re.fullmatch("[0-9]{1,18}", told.get(name, "")) for name in ("index", "t")):
        return "says no index and t"
    return None if (i := int(told["index"])) == int(path.stem) else f"is the frame of step {i}"


@looked_at
def fault_of_image(path: Path) -> str | None:
    """The same for a PNG."""
    try:
        with open_png(path) as image:
            image.verify()
        return None if read_image(path).shape[2:] == (3,) else "is no picture in colour"
    except BROKEN_PNG as error:
        if isinstance(error, FileNotFoundError | Unfit):
            raise
        return "is no whole PNG"


@contextmanager
def open_png(path: Path) -> Iterator[Image.Image]:
    """Of all that Pillow reads only PNG: some formats start programs. Raises `BROKEN_PNG`."""
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file, formats=["PNG"]) as image:
            yield image


def read_image(path: Path) -> np.ndarray:
    """A picture as an array, (H, W, 3) uint8. Raises `BROKEN_PNG`."""
    with open_png(path) as image:
        return np.asarray(image)
