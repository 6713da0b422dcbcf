"""Probes and edits as data: what film.json keeps of them, so that a run can be made again.

A frozen dataclass is kept as its class and its fields, a function as its module and its name, a
film as its folder, told from the folder of the film that used it.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from stable_diffusion_tf.errors import UsageError

Data = dict[str, Any] | list[Any] | str | int | float | None


def as_data(value: Any, folder: Path) -> Data:
    """A probe, an edit or what they are made of, as JSON holds it."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, os.PathLike):
        return {"film": Path(os.path.relpath(value, folder)).as_posix()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: as_data(getattr(value, f.name), folder) for f in fields(value)}
        return {"class": name_of(type(value)), "fields": parts}
    if isinstance(value, Mapping):
        return {"lost": "arrays that were handed in"}
    if isinstance(value, Iterable):
        return [as_data(part, folder) for part in value]
    return function_as_data(value)


def function_as_data(function: Callable) -> Data:
    """Its name where that leads back to it, as that of a lambda or of a closure does not."""
    name = name_of(function)
    try:
        return {"function" if find(name) is function else "lost": name}
    except (ImportError, AttributeError, ValueError):
        return {"lost": name}


def from_data(data: Data, folder: Path, open_film: Callable[[Path], Any]) -> Any:
    """What `as_data` was given; sequences come back as tuples. Raises UsageError."""
    match data:
        case {"film": place}:
            return open_film(folder / place)
        case {"class": name, "fields": parts}:
            made = {key: from_data(part, folder, open_film) for key, part in parts.items()}
            return known(name)(**made)
        case {"function": name}:
            return known(name)
        case {"lost": name}:
            raise UsageError(
                f"{folder} was shot with {name}, and nothing tells where to find that; "
                f"type replay(sd, probes=…, edits=…) with those that it was shot with"
            )
        case list():
            return tuple(from_data(part, folder, open_film) for part in data)
    return data


def name_of(value: Any) -> str:
    """'module:name', as in 'xray.probe:Mean'."""
    name = getattr(value, "__qualname__", None) or repr(value)
    return f"{getattr(value, '__module__', None)}:{name}"


def find(name: str) -> Any:
    """What bears the name. Raises ImportError, AttributeError or ValueError."""
    module, _, path = name.partition(":")
    return reduce(getattr, path.split("."), importlib.import_module(module))


def known(name: str) -> Any:
    """What bears the name. Raises UsageError."""
    try:
        return find(name)
    except (ImportError, AttributeError, ValueError):
        raise UsageError(
            f"the film was shot with {name}, which is not there; import it from its place, or "
            f"type replay(sd, probes=…, edits=…)"
        ) from None
