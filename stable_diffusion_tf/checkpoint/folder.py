"""The diffusers folder: one subfolder per part with config.json and safetensors."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..config import to_dict
from ..errors import UsageError
from .names import to_diffusers, variables

FILES = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
EXTRAS = {  # what a part's file may hold that the named network does not use
    "text_encoder": ("text_model.embeddings.position_ids",),
    "unet": (),
    "encoder": ("decoder.*", "post_quant_conv.*"),
    "decoder": ("encoder.*", "quant_conv.*"),
}
OTHER_NAMES = {  # part → how other versions begin or spell names, and what that is called here
    "text_encoder": (  # transformers 5
        (r"^(embeddings|encoder|final_layer_norm)\.", r"text_model.\1."),
    ),
    "unet": (),
    "vae": (  # diffusers up to 0.16, and so SD 1.x as published
        (r"\.query\.", ".to_q."),
        (r"\.key\.", ".to_k."),
        (r"\.value\.", ".to_v."),
        (r"\.proj_attn\.", ".to_out.0."),
    ),
}


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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UsageError says which file is not there or is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no {path.name} in {path.parent}; is it a diffusers folder?") from None
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}); fetch it again") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object; fetch it again")
    return found


def open_part(folder: Path, part: str) -> SafetensorsFile:
    return SafetensorsFile(folder / part / FILES[part], OTHER_NAMES[part])


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
