"""Compiled graphs kept on disk from one process to the next, in the user's cache folder.

A file's name is the hash of all that determines what it holds: graph, weights, shapes, precision,
CPU, versions. Hence nothing there is ever stale. XRAY_GRAPHS names another folder, or is "off".
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import openvino as ov

from ..disk import whole_file

SETTING, OFF = "XRAY_GRAPHS", "off"
LARGEST = 128e6  # bytes of weights: to read a large graph back takes longer than to compile it
ROOM = 512e6  # bytes of all files; what was not used for longest goes first
DIGEST = 32  # bytes, in front of what they are the hash of
LEFT_BEHIND = 3600  # seconds until a file half written counts as one that nobody finishes
INNER = {"If", "Loop", "TensorIterator"}  # nodes with graphs of their own


def folder() -> Path | None:
    """Where the graphs lie; None where none are to be kept, or the user has no home."""
    if told := os.environ.get(SETTING):
        return None if told == OFF else Path(told)
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return home / "diffusion-xray" / "openvino" if home.is_absolute() else None


def name_of(core: ov.Core, graph: ov.Model, options: dict[str, Any]) -> str | None:
    """Of the file that holds this graph compiled; None where none is kept."""
    nodes = None if folder() is None else in_order(graph)
    if nodes is None or INNER & {node.get_type_name() for node in nodes}:
        return None
    if sum(node.get_byte_size() for node in nodes if is_constant(node)) > LARGEST:
        return None
    told = hashlib.sha256()
    for words in (ov.__version__, keras.__version__, *machine(core), sorted(options.items())):
        told.update(repr(words).encode())
    number = {node.get_name(): i for i, node in enumerate(nodes)}
    for node in nodes:
        told.update(repr(described(node, number)).encode())
        if is_constant(node):
            told.update(np.ascontiguousarray(node.data).view(np.uint8))
    return told.hexdigest()


def machine(core: ov.Core) -> Iterator[Any]:
    """What of the CPU decides how a graph is compiled."""
    yield core.get_property("CPU", "FULL_DEVICE_NAME")
    yield sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    yield os.environ.get("ONEDNN_MAX_CPU_ISA")


def in_order(graph: ov.Model) -> list[ov.Node]:
    """All nodes, each after those that it is made of: an order that depends on nothing but the
    graph, as OpenVINO's own does not."""
    done: dict[str, ov.Node] = {node.get_name(): node for node in graph.get_parameters()}
    waiting = [*reversed(graph.get_results())]
    while waiting:
        node = waiting[-1]
        sources = [value.get_node() for value in node.input_values()]
        missing = [source for source in sources if source.get_name() not in done]
        if missing:
            waiting += reversed(missing)
        else:
            done.setdefault(waiting.pop().get_name(), node)
    return [*done.values()]


def described(node: ov.Node, number: dict[str, int]) -> tuple:
    """All that a node is but its weights."""
    sources = [(number[v.get_node().get_name()], v.get_index()) for v in node.input_values()]
    shapes = [f"{out.get_partial_shape()} {out.get_element_type()}" for out in node.outputs()]
    attributes = {} if is_constant(node) else node.get_attributes()
    return node.get_type_name(), sorted(attributes.items(), key=repr), sources, shapes


def is_constant(node: ov.Node) -> bool:
    return node.get_type_name() == "Constant"


def compiled_before(
    core: ov.Core, name: str | None, options: dict[str, Any]
) -> ov.CompiledModel | None:
    """The graph of this name; None where none is kept, or what is kept is not whole."""
    if name is None:
        return None
    try:
        path = folder() / name
        held = path.read_bytes()
        digest, body = held[:DIGEST], memoryview(held)[DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            return None
        found = core.import_model(bytes(body), "CPU", options)
        os.utime(path)
    except (OSError, RuntimeError):
        return None
    return found


def keep(compiled: ov.CompiledModel, name: str | None) -> None:
    """Keep a graph under its name. Where that cannot be, nothing is lost but time."""
    if name is None:
        return
    with suppress(OSError, RuntimeError):
        body = compiled.export_model()
        body = body if isinstance(body, bytes) else body.getvalue()
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        with whole_file(place / name, mark=f"-{os.getpid()}") as fresh:
            fresh.write_bytes(hashlib.sha256(body).digest() + body)
        make_room(place)


def make_room(place: Path) -> None:
    """Remove what was not used for longest until the rest fits, and what was never finished."""
    found = sorted(((path.stat(), path) for path in place.iterdir()), key=lambda f: -f[0].st_mtime)
    total = 0
    for stat, path in found:
        total += stat.st_size
        unfinished = path.suffix == ".part"
        if time.time() - stat.st_mtime > LEFT_BEHIND if unfinished else total > ROOM:
            path.unlink(missing_ok=True)
