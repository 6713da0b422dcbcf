"""The diffusers folder: one subfolder per part with config.json and safetensors."""

import json
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .tensors import SafetensorsFile

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
