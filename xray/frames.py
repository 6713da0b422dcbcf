"""The files of a film: named float32 arrays as safetensors, and JSON; each is whole or not there.

Near its beginning every file bears a CRC-32 of all its bytes, taken while the eight digits of the
CRC itself were zeros, so that a flip of any bit is found. The format of the arrays, which every
safetensors library reads: huggingface.co/docs/safetensors.
"""

import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
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
PIECE = 2**20  # bytes, read at a time


class Tensors(Mapping[str, np.ndarray]):
    """The arrays of one file by their names: each is read when it is asked for, and not kept."""

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self.places = json.loads(file.read(length))
        self.start = 8 + length
        self.told: dict[str, str] = self.places.pop("__metadata__")

    def __getitem__(self, name: str) -> np.ndarray:
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
    stems = [path.stem for path in (folder / FRAMES).glob("*.safetensors")]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


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


def fault(path: Path) -> str | None:
    """What is wrong with a sealed file, or None. It is read in small pieces."""
    try:
        with open(path, "rb") as file:
            return None if matches_seal(file) else "does not match its checksum"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def matches_seal(file: BinaryIO) -> bool:
    head = file.read(HEAD)
    seal = SEAL.search(head)
    if not seal:
        return False
    crc = zlib.crc32(head[: seal.start()] + b"0" * 8 + head[seal.end() :])
    while piece := file.read(PIECE):
        crc = zlib.crc32(piece, crc)
    return seal[0] == b"%08x" % crc


def fault_of_frame(path: Path) -> str | None:
    """The same for a frame, which must also be that of the step that it is named after."""
    wrong = fault(path)
    if not wrong and (index := Frame(path).index) != int(path.stem):
        return f"is the frame of step {index}"
    return wrong


def fault_of_image(path: Path) -> str | None:
    """The same for a PNG."""
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError):  # Pillow raises all three
        return "is no whole PNG"
    return None
