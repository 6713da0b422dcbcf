"""torch's files, written by NumPy alone: good ones, and such as torch would never write."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

STORAGES = {
    "float32": "torch.FloatStorage",
    "float16": "torch.HalfStorage",
    "bfloat16": "torch.BFloat16Storage",
    "int64": "torch.LongStorage",
    "bool": "torch.BoolStorage",
}


class Global(str):
    """A class or a function, as 'module.name'."""


@dataclass(frozen=True)
class Call:
    """A function that is called when the pickle is loaded."""

    function: Any
    args: tuple = ()


@dataclass(frozen=True)
class New(Call):
    """An object that is made without its __init__, as pickle makes most."""


@dataclass(frozen=True)
class Built:
    """A thing that is given a state when the pickle is loaded."""

    thing: Any
    state: Any


@dataclass(frozen=True)
class Saved:
    """A thing that torch keeps outside of the pickle."""

    key: tuple


def pickled(thing: Any) -> bytes:
    """A pickle in protocol 2. What it names need not be there."""
    return b"\x80\x02" + instructions(thing) + b"."


def instructions(thing: Any) -> bytes:
    match thing:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[thing]
        case Global():
            return "c{}\n{}\n".format(*thing.rsplit(".", 1)).encode()
        case str():
            return b"X" + struct.pack("<I", len(thing.encode())) + thing.encode()
        case int():
            digits = thing.to_bytes(thing.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(digits)]) + digits
        case tuple():
            return b"(" + b"".join(map(instructions, thing)) + b"t"
        case list():
            return b"](" + b"".join(map(instructions, thing)) + b"e"
        case dict():
            return b"}(" + b"".join(instructions(x) for pair in thing.items() for x in pair) + b"u"
        case Call(function, args):
            made = b"\x81" if isinstance(thing, New) else b"R"
            return instructions(function) + instructions(args) + made
        case Built(built, state):
            return instructions(built) + instructions(state) + b"b"
        case Saved(key):
            return instructions(key) + b"Q"
    raise TypeError(type(thing))


def torch_tree(tree: Any, storages: list[np.ndarray], more: tuple = ()) -> Any:
    """The tree with torch's calls in place of arrays, whose numbers are added to `storages`: views
    of one array share one storage, strides and all. `more`: what is told of each besides."""
    match tree:
        case np.ndarray():
            return torch_tensor(tree, storages, more)
        case Call(function, args):
            return type(tree)(function, torch_tree(args, storages, more))
        case Built(thing, state):
            return Built(torch_tree(thing, storages, more), torch_tree(state, storages, more))
        case dict():
            return {key: torch_tree(value, storages, more) for key, value in tree.items()}
        case tuple() | list():
            return type(tree)(torch_tree(value, storages, more) for value in tree)
    return tree


def torch_tensor(array: np.ndarray, storages: list[np.ndarray], more: tuple) -> Call:
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not any(root is storage for storage in storages):
        storages.append(root)
    key = next(str(i) for i, storage in enumerate(storages) if storage is root)
    start = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    saved = Saved(("storage", Global(STORAGES[array.dtype.name]), key, "cpu", root.size, *more))
    strides = tuple(step // array.itemsize for step in array.strides)
    hooks = Call(Global("collections.OrderedDict"))
    return Call(
        Global("torch._utils._rebuild_tensor_v2"),
        (saved, start // array.itemsize, array.shape, strides, False, hooks),
    )


def write_zip(path: Path, tree: Any) -> Path:
    """As torch.save writes it since torch 1.6."""
    storages: list[np.ndarray] = []
    data = pickled(torch_tree(tree, storages))
    with ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        for i, storage in enumerate(storages):
            member = ZipInfo(f"archive/data/{i}")
            member.compress_type = ZIP_STORED
            member.extra = b"FB" + struct.pack("<H", 9 + i % 5) + b"Z" * (9 + i % 5)  # to align
            archive.writestr(member, storage.tobytes("A"))
    return path


def write_stream(path: Path, tree: Any) -> Path:
    """As torch.save wrote it before torch 1.6."""
    storages: list[np.ndarray] = []
    tree = torch_tree(tree, storages, (None,))
    system = {"protocol_version": 1001, "little_endian": True}
    head = (0x1950A86A20F9469CFC6C, 1001, system, tree)
    pickles = [pickled(thing) for thing in (*head, [str(i) for i in range(len(storages))])]
    bodies = [struct.pack("<q", storage.size) + storage.tobytes("A") for storage in storages]
    path.write_bytes(b"".join(pickles + bodies))
    return path
