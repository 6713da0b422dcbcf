"""A file of named tensors, told by its content, whatever its name says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import is_there, open_file
from ..errors import UsageError
from .pickles import open_stream, open_zip
from .tensors import SafetensorsFile, Source

SIGNATURES = {  # how a file begins → what it is
    b"PK\x03\x04": "torch zip",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "torch stream",  # its magic number, pickled
    b"\x89HDF\r\n\x1a\n": "h5",
    b"version https://git-lfs": "git-lfs pointer",
    b"<": "page",
    b"GGUF": "gguf",
    b"\x1f\x8b": "archive",
    b"\x80": "pickle",
    b"{": "text",
}
MOST_JSON = 16 * 2**20  # bytes; the index of a large model takes a hundredth of it
READERS = {"safetensors": SafetensorsFile, "torch zip": open_zip, "torch stream": open_stream}
REFUSALS = {  # what a file is → what to say of it
    "h5": "is one Keras h5 file of several; name the folder that holds all of them",
    "git-lfs pointer": "is a git-lfs pointer, not the weights; run `git lfs pull` beside it",
    "page": "is a web page, not weights: the download was refused; fetch it again, signed in",
    "gguf": "is a GGUF file, which is not read here; fetch it as .safetensors",
    "archive": "is a compressed archive; unpack it and name what was in it",
    "pickle": "is a pickle, but not of torch; fetch it as .safetensors",
    "text": "is text, not weights; name the folder or the .safetensors file",
    "empty": "is empty; fetch it again",
    "unknown": "is no weights file that is known here, or a broken one; fetch it again",
}


def kind(path: Path) -> str:
    """'safetensors', 'torch zip', 'h5', or what else the file is: a key of `READERS` or `REFUSALS`.
    Raises UsageError where it cannot be read, or is no regular file."""
    with open_file(path) as file:
        head = file.read(256)
    if not head:
        return "empty"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "safetensors"
    told = (name for start, name in SIGNATURES.items() if head.lstrip().startswith(start))
    return next(told, "unknown")


def open_tensors(path: Path) -> Source:
    """The tensors of a file by the names that it gives them.

    Raises UsageError, which says what the file is, where it is no safetensors and no torch file.
    """
    found = kind(path)
    if found not in READERS:
        raise UsageError(f"{path} {REFUSALS[found]}")
    return READERS[found](path)


class Shards:
    """The tensors of several files that an index joins: its 'weight_map' is name → file beside it.
    Raises UsageError."""

    def __init__(self, path: Path, index: Mapping[str, Any]):
        self.place = str(path)
        found = index.get("weight_map")
        if not isinstance(found, dict) or not all(map(is_plain_name, found.values())):
            raise UsageError(f"{path} has no weight_map of names to files; fetch it again")
        self.files = {name: path.parent / shard for name, shard in found.items()}
        self.sources = {shard: open_shard(path, shard) for shard in set(self.files.values())}
        self.sizes = {shard: source.shapes() for shard, source in self.sources.items()}
        lost = [name for name, shard in self.files.items() if name not in self.sizes[shard]]
        if lost:
            raise UsageError(
                f"{self.files[lost[0]]} lacks {lost[0]}, which {path.name} says it has; "
                f"fetch both again"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: self.sizes[shard][name] for name, shard in self.files.items()}

    def get(self, key: str) -> np.ndarray:
        return self.sources[self.files[key]].get(key)


def is_plain_name(shard: Any) -> bool:
    """Whether it names a file in the same folder."""
    return isinstance(shard, str) and shard != "" and shard == Path(shard).name


def open_shard(index: Path, shard: Path) -> Source:
    if not is_there(shard):
        raise UsageError(f"{shard} is missing, one of the shards in {index.name}; fetch it too")
    return open_tensors(shard)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UsageError says which file is not there or is not one."""
    if not is_there(path):
        raise UsageError(f"no {path.name} in {path.parent}; is it a diffusers folder?")
    with open_file(path) as file:
        text = file.read(MOST_JSON + 1)
    if len(text) > MOST_JSON:
        raise UsageError(f"{path} is larger than any config or index; fetch it again")
    try:
        found = json.loads(text.decode())
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}); fetch it again") from None
    except RecursionError:
        raise UsageError(f"{path} is nested too deep for a config; fetch it again") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object; fetch it again")
    return found
