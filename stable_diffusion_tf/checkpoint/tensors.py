"""A file of named tensors, read one at a time when asked for."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import UsageError


class SafetensorsFile:
    """A safetensors file, memory-mapped: tensors are read when asked for. `other_names`: patterns
    of names to replace, and by what."""

    def __init__(self, path: Path, other_names: Sequence[tuple[str, str]] = ()):
        self.place = str(path)
        try:
            self.file = safe_open(path, framework="numpy")
        except FileNotFoundError:
            raise UsageError(f"no weights at {path}; name a folder that holds them") from None
        except SafetensorError as error:
            raise UsageError(f"{path} is no whole safetensors file ({error})") from None
        self.names = {renamed(k, other_names): k for k in self.file.keys()}  # noqa: SIM118

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {k: tuple(self.file.get_slice(name).get_shape()) for k, name in self.names.items()}

    def get(self, key: str) -> np.ndarray:
        return self.file.get_tensor(self.names[key])


def renamed(name: str, other_names: Sequence[tuple[str, str]]) -> str:
    for pattern, here in other_names:
        name = re.sub(pattern, here, name)
    return name
