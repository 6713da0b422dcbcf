"""What determines a run, and the hash of it."""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from stable_diffusion_tf.checkpoint.places import locate
from stable_diffusion_tf.errors import UsageError
from xray.film.camera import project_version
from xray.script import named, story

LETTERS = 20  # of a run's hash
BLOCK = 2**20  # bytes that are read at once
MODEL = {".json", ".safetensors", ".ckpt", ".bin", ".h5", ".txt"}  # files that a model is made of
ELSEWHERE = ("out", "folder", "backend", "weights")  # options that say where, or stand in the facts
PACKAGES = {"tensorflow": ("tensorflow", "tensorflow-cpu")}  # which may bring a backend


def facts_of(main: Callable, backend: str | None) -> dict[str, Any]:
    """What all runs of a sweep share. backend: None for what needs no model."""
    name, _ = story(main)
    found = {"diffusion-xray": project_version()}
    if backend:
        found |= {"keras": version_of("keras"), backend: version_of(backend)}
    return {"experiment": name, "source": source_of(main), "backend": backend, "versions": found}


def version_of(library: str) -> str:
    """Asked of what is installed, as importing it takes seconds."""
    for name in PACKAGES.get(library, (library,)):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def source_of(main: Callable) -> str | None:
    """The digest of the file that holds main. Of a script that runs, in which the sweep itself may
    change, and of a notebook: of main alone, None where it is not known."""
    if main.__module__ != "__main__" and (file := main.__globals__.get("__file__")):
        return digest_of(Path(file).read_bytes())
    try:
        return digest_of(inspect.getsource(main).encode())
    except OSError:
        return None


def key_of(facts: Mapping[str, Any], weights: str | None, options: Any) -> str:
    """The hash of a run. weights: their digest. Raises UsageError for an option that may be equal
    to others without being the same."""
    asked = {name: value for name, value in named(options).items() if name not in ELSEWHERE}
    told = {**facts, "weights": weights, "precision": asked.pop("precision", "float32")}
    told["options"] = {name: plain(value, name) for name, value in asked.items()}
    return digest_of(json.dumps(told, sort_keys=True).encode())[:LETTERS]


def plain(value: Any, name: str) -> Any:
    """A value as JSON tells it from all others; of a file what is in it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return [str(value), digest_of_place(value) if value.exists() else None]
    if isinstance(value, np.ndarray | np.generic):
        held = np.ascontiguousarray(value)
        return [str(held.dtype), list(held.shape), digest_of(held.tobytes())]
    if isinstance(value, Mapping):
        return {str(n): plain(one, name) for n, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, name) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(plain(one, name), sort_keys=True) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), name) for field in fields(value)}
    raise UsageError(
        f"{name}={value!r:.60} is a {type(value).__name__}, of which nobody can say whether two "
        "are the same; use numbers, texts, paths, arrays, or lists of them"
    )


# --- digests -----------------------------------------------------------------------------------


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of_weights(name: str) -> str:
    """Of the files of a model, by its name or place. Raises UsageError where there is none."""
    return digest_of_place(locate(name))


def digest_of_place(place: Path) -> str:
    """Of a file, or of a folder's files and their names."""
    made = hashlib.sha256()
    for path in files_in(place):
        made.update(f"{path.relative_to(place).as_posix()}\n".encode())
        try:
            with open(path, "rb") as file:
                while block := file.read(BLOCK):
                    made.update(block)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return made.hexdigest()


def bytes_of_weights(name: str) -> int:
    return sum(path.stat().st_size for path in files_in(locate(name)))


def files_in(place: Path) -> Iterator[Path]:
    """The file itself; of a model's folder, what a model is made of, of another all."""
    if not place.is_dir():
        yield place
        return
    files = sorted(path for path in place.rglob("*") if path.is_file())
    is_model = (place / "unet").is_dir() or any(path.suffix == ".h5" for path in files)
    yield from (path for path in files if not is_model or path.suffix in MODEL)
