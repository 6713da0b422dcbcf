"""TAESD on disk: a diffusers folder, or its author's two files."""

import re
from pathlib import Path

from ..config import TAESDConfig, check_relations, from_dict
from ..disk import is_there
from ..errors import UsageError
from .files import open_tensors, read_json
from .tensors import Renamed, Source

DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
AUTHORS_ENDINGS = ("safetensors", "pth")
OTHER = {"encoder": "decoder", "decoder": "encoder"}
LAYERS_BEFORE = {"encoder": 0, "decoder": 1}  # the author counts the decoder's tanh, diffusers not


def file_of(folder: Path, part: str) -> Path | None:
    """Where the 'encoder' or the 'decoder' lies, diffusers' file before its author's."""
    names = (*DIFFUSERS_FILES, *(f"taesd_{part}.{ending}" for ending in AUTHORS_ENDINGS))
    return next((folder / name for name in names if is_there(folder / name)), None)


def open_taesd(folder: Path, part: str) -> tuple[TAESDConfig, Source]:
    """The 'encoder' or the 'decoder' of a TAESD folder, by diffusers' names.

    The folder holds config.json and diffusion_pytorch_model.safetensors, or
    taesd_encoder.safetensors and taesd_decoder.safetensors (.bin and .pth are read too). Raises
    UsageError.
    """
    found = file_of(folder, part)
    if found is None:
        raise UsageError(
            f"no TAESD {part} in {folder}: neither {DIFFUSERS_FILES[0]} nor "
            f"taesd_{part}.{AUTHORS_ENDINGS[0]}; fetch madebyollin/taesd"
        )
    source = open_tensors(found)
    if found.name not in DIFFUSERS_FILES:
        return TAESDConfig(), Renamed(source, {diffusers_name(k, part): k for k in source.shapes()})
    place = folder / "config.json"
    config = from_dict(TAESDConfig, read_json(place), place)
    check_relations(config, place)
    half = {k: k for k in source.shapes() if not k.startswith(f"{OTHER[part]}.")}
    return config, Renamed(source, half)


def diffusers_name(name: str, part: str) -> str:
    """The author's '3.conv.0.weight' of the decoder → 'decoder.layers.2.conv.0.weight'."""

    def layer(found: re.Match) -> str:
        return f"{part}.layers.{int(found[0]) - LAYERS_BEFORE[part]}"

    return re.sub(r"^\d+", layer, name)
