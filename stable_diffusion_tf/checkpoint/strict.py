"""The loader: every variable found once, in its shape, and nothing left over."""

from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Protocol

import keras
import numpy as np

from ..errors import UsageError
from .names import diffusers_shape, to_keras, variables

SHOWN = 5  # names of each kind in an error


class Source(Protocol):
    """Tensors by diffusers name, read when asked for."""

    place: str

    def shapes(self) -> dict[str, tuple[int, ...]]: ...
    def get(self, key: str) -> np.ndarray: ...


def load(network: keras.Model, source: Source, ignore: Sequence[str] = ()) -> None:
    """Assign every variable of the network from the source, one at a time.

    `ignore`: patterns of names that the source may hold besides. Raises UsageError naming all
    that is missing, unexpected or misshapen; the network is then untouched.
    """
    wanted, shapes = variables(network), source.shapes()
    findings = {
        "missing": [k for k in wanted if k not in shapes],
        "unexpected": [
            k for k in shapes if k not in wanted and not any(fnmatch(k, p) for p in ignore)
        ],
        "misshapen": [
            f"{k} {shapes[k]}, not {diffusers_shape(v)}"
            for k, v in wanted.items()
            if k in shapes and shapes[k] != diffusers_shape(v)
        ],
    }
    if any(findings.values()):
        told = "; ".join(f"{len(v)} {kind}: {some(v)}" for kind, v in findings.items() if v)
        raise UsageError(f"{source.place} does not fit its config.json: {told}")
    for key, variable in wanted.items():
        variable.assign(to_keras(source.get(key), variable))


def some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
