"""Networks → a diffusers folder."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import save_file

from ..config import to_dict
from .folder import FILES
from .names import to_diffusers, variables


def write_part(
    folder: Path, part: str, config: Any, networks: Sequence[keras.Model], dtype: str, **more: Any
) -> None:
    """A part's weights and config, each file whole or not there at all."""
    place = folder / part
    place.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: np.ascontiguousarray(to_diffusers(value_of(variable), variable).astype(dtype))
        for network in networks
        for key, variable in variables(network).items()
    }
    fresh = place / f"{FILES[part]}.part"
    save_file(tensors, fresh, metadata={"format": "pt"})
    os.replace(fresh, place / FILES[part])
    write_json(place / "config.json", more | to_dict(config))


def value_of(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
