"""The diffusers folder: one subfolder per part with config.json and weights."""

import re
from pathlib import Path
from typing import Any

from ..config import (
    CLIPTextConfig,
    ScheduleConfig,
    UNetConfig,
    VAEConfig,
    check_relations,
    check_together,
    from_dict,
    one_for_all,
)
from ..disk import is_there
from ..errors import UsageError
from .files import Shards, open_tensors, read_json
from .tensors import Renamed, Source, renamed

FILES = {  # what is written, and what is looked for first
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
TORCH_FILES = {part: f"{Path(name).stem}.bin" for part, name in FILES.items()} | {
    "text_encoder": "pytorch_model.bin"
}
CONFIGS = {  # part → its config's file and class
    "text_encoder": ("config.json", CLIPTextConfig),
    "unet": ("config.json", UNetConfig),
    "vae": ("config.json", VAEConfig),
    "scheduler": ("scheduler_config.json", ScheduleConfig),
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
OTHER_PIPELINES = {  # how model_index.json's _class_name begins → what the folder then is
    "StableDiffusionXL": "Stable Diffusion XL",
    "StableDiffusion3": "Stable Diffusion 3",
    "StableDiffusionInpaint": "an inpainting model",
    "StableDiffusionInstructPix2Pix": "InstructPix2Pix",
    "StableDiffusionDepth2Img": "a depth model of Stable Diffusion 2",
    "StableDiffusionUpscale": "an upscaler",
    "StableDiffusionLatentUpscale": "an upscaler",
    "StableVideoDiffusion": "Stable Video Diffusion",
    "AnimateDiff": "AnimateDiff",
    "Flux": "FLUX",
    "PixArt": "PixArt",
    "AudioLDM": "AudioLDM",
    "MusicLDM": "MusicLDM",
    "Kandinsky": "Kandinsky",
}
OTHER_CONTEXTS = {
    1024: "Stable Diffusion 2",
    1280: "Stable Diffusion XL",
    2048: "Stable Diffusion XL",
}
OTHER_INPUTS = {  # channels that the UNet takes → what it is
    5: "a depth model of Stable Diffusion 2",
    7: "an upscaler",
    8: "InstructPix2Pix or another model of 8 channels",  # GeoWizard, AudioLDM
    9: "an inpainting model",
}
SD1 = "only whole models of Stable Diffusion 1.x and its relatives are read here"


class DiffusersFolder:
    """A folder as diffusers' save_pretrained writes it, or a part of one.

    Raises UsageError where it holds another model than Stable Diffusion 1.x, or a config that is
    none; the weights are read when they are wanted.
    """

    def __init__(self, path: Path):
        self.place = path
        other = other_model(path)
        if other:
            raise UsageError(f"{path} is {other}; {SD1}")
        told = {}
        for part, (name, config) in CONFIGS.items():
            if is_there(place := path / part / name):
                told[part] = from_dict(config, read_json(place), place)
                check_relations(told[part], place)
        check_together(told, path)

    def config(self, part: str) -> dict[str, Any]:
        read = optional_json if part == "scheduler" else read_json
        return read(self.place / part / CONFIGS[part][0])

    def source(self, part: str) -> Source:
        return open_part(self.place, part)


def optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if is_there(path) else {}


def other_model(folder: Path) -> str | None:
    """What the folder's configs say that it is, if that is not Stable Diffusion 1.x."""
    pipeline = optional_json(folder / "model_index.json").get("_class_name", "")
    unet = optional_json(folder / "unet" / "config.json")
    told = {key: one_for_all(value) for key, value in unet.items()}
    numbers = {key: value for key, value in told.items() if isinstance(value, int)}
    schedule = optional_json(folder / "scheduler" / "scheduler_config.json")
    target = str(schedule.get("prediction_type", "epsilon")).removesuffix("_prediction")
    named = (name for start, name in OTHER_PIPELINES.items() if str(pipeline).startswith(start))
    findings = (
        next(named, None),
        "Stable Diffusion XL" if is_there(folder / "text_encoder_2") else None,
        other_unet(numbers.get("cross_attention_dim"), numbers.get("in_channels")),
        "Stable Diffusion 2" if isinstance(told.get("attention_head_dim"), list) else None,
        f"a model that predicts {target}" if target != "epsilon" else None,
    )
    return next(filter(None, findings), None)


def other_unet(context: Any, channels: Any) -> str | None:
    """What a UNet is by the width of its context and its input channels, if not SD 1.x."""
    return OTHER_CONTEXTS.get(context) or OTHER_INPUTS.get(channels)


def open_part(folder: Path, part: str) -> Source:
    """The tensors of 'text_encoder', 'unet' or 'vae' from the first file of `choices` there is."""
    found = [folder / part / name for name in choices(part) if is_there(folder / part / name)]
    if not found:
        raise UsageError(f"no weights at {folder / part / FILES[part]}; name a folder with them")
    tensors = (
        Shards(found[0], read_json(found[0]))
        if found[0].suffix == ".json"
        else open_tensors(found[0])
    )
    return Renamed(tensors, renamed(tensors.place, tensors.shapes(), OTHER_NAMES[part]))


def choices(part: str) -> list[str]:
    """The files that a part's weights may lie in: safetensors before pickles, whole before half
    precision, one file before shards."""
    return [
        choice
        for name in (FILES[part], TORCH_FILES[part])
        for choice in (name, re.sub(r"\.(\w+)$", r".fp16.\1", name), f"{name}.index.json")
    ]
