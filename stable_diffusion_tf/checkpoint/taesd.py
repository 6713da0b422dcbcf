"""TAESD on disk: a diffusers folder, or its author's two files."""

import re
from pathlib import Path

from ..config import TAESDConfig, check_relations, from_dict
from ..disk import is_there
from ..errors import UsageError
from .files import open_tensors, read_json
from .tensors import Renamed, Source

DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
OTHER = {"encoder": "decoder", "decoder": "encoder"}
LAYERS_BEFORE = {"encoder": 0, "decoder": 1}  # the author counts the decoder's tanh, diffusers not


def open_taesd(folder: Path, part: str) -> tuple[TAESDConfig, Source]:
    """The 'encoder' or the 'decoder' of a TAESD folder, by diffusers' names.

    The folder holds config.json and diffusion_pytorch_model.safetensors, or
    taesd_encoder.safetensors and taesd_decoder.safetensors (.bin and .pth are read too). Raises
    UsageError.
    """
    theirs = [folder / name for name in DIFFUSERS_FILES]
    authors = [folder / f"taesd_{part}.{ending}" for ending in ("safetensors", "pth")]
    found = next((path for path in (*theirs, *authors) if is_there(path)), None)
    if found is None:
        raise UsageError(
            f"no TAESD {part} in {folder}: neither {theirs[0].name} nor {authors[0].name}; "
            f"fetch madebyollin/taesd"
        )
    source = open_tensors(found)
    if found in authors:
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
