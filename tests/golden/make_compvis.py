"""Write compvis.json.gz: the names of single files, and what diffusers' own converter calls them.

python -m tests.golden.make_compvis        (needs torch, diffusers, transformers)
"""

import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stable_diffusion_tf.config import UNetConfig
from tests import oracles
from tests.oracles import ANATOMIES, Anatomy

GOLDEN = Path(__file__).with_name("compvis.json.gz")
CHOSEN = ("sd1", "bk-sdm-tiny")

# --- diffusers' names → CompVis' ---------------------------------------------------------------

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def unet_name(name: str, config: UNetConfig) -> str:
    """What CompVis calls a tensor of diffusers' UNet."""
    in_level = re.fullmatch(r"(down|up)_blocks\.(\d+)\.([a-z]+)\.(\d+)\.(.*)", name)
    if in_level:
        way, level, kind, layer, rest = in_level.groups()
        per_level, level = config.layers_per_block + 1, int(level)
        first = 1 + level * per_level if way == "down" else level * per_level
        attends = way == "up" and "CrossAttn" in config.up_block_types[level]
        start = {
            "resnets": f"{first + int(layer)}.0.",
            "attentions": f"{first + int(layer)}.1.",
            "downsamplers": f"{first + per_level - 1}.0.",
            "upsamplers": f"{first + per_level - 1}.{2 if attends else 1}.",
        }[kind]
        rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        name = f"{'input' if way == 'down' else 'output'}_blocks.{start}{rest}"
    for here, there in UNET_ENDS.items():
        name = re.sub(rf"^{re.escape(here)}\.", f"{there}.", name)
    for here, there in RESNET.items():
        name = re.sub(rf"^(\w+_blocks?\.\d+(?:\.0)?)\.{here}\.", rf"\1.{there}.", name)
    return name


def vae_name(name: str, levels: int) -> str:
    """What CompVis calls a tensor of diffusers' VAE."""
    name = re.sub(r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block.", name)
    name = re.sub(r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample.", name)
    up = re.fullmatch(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers\.0)\.(.*)", name)
    if up:
        kind = {"resnets": "block", "upsamplers.0": "upsample"}[up[2]]
        name = f"decoder.up.{levels - 1 - int(up[1])}.{kind}.{up[3]}"
    name = re.sub(r"\.mid_block\.resnets\.0\.", ".mid.block_1.", name)
    name = re.sub(r"\.mid_block\.resnets\.1\.", ".mid.block_2.", name)
    for here, there in VAE_ATTENTION.items():
        name = name.replace(f".mid_block.attentions.0.{here}.", f".mid.attn_1.{there}.")
    return name.replace(".conv_shortcut.", ".nin_shortcut.").replace("conv_norm_out.", "norm_out.")


def compvis(
    parts: Mapping[str, Mapping[str, np.ndarray]], anatomy: Anatomy
) -> dict[str, np.ndarray]:
    """diffusers' tensors by part → one file's tensors in CompVis' layout."""
    levels = len(anatomy.vae.block_out_channels)
    text = {f"cond_stage_model.transformer.{k}": v for k, v in parts["text_encoder"].items()}
    unet = {
        f"model.diffusion_model.{unet_name(k, anatomy.unet)}": v for k, v in parts["unet"].items()
    }
    vae = {
        f"first_stage_model.{vae_name(k, levels)}": v[:, :, None, None]
        if re.search(r"mid_block\.attentions.*to_.*weight$", k)
        else v
        for k, v in parts["vae"].items()
    }
    return text | unet | vae


# --- and back, by diffusers ----------------------------------------------------------------------


def converted(flat: Mapping[str, np.ndarray], anatomy: Anatomy) -> dict[str, dict[str, np.ndarray]]:
    """A single file's tensors by part and diffusers name, as diffusers itself converts them."""
    import torch
    from diffusers.loaders import single_file_utils as theirs

    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in flat.items()}
    levels = [None] * len(anatomy.vae.block_out_channels)
    vae = {"down_block_types": levels, "up_block_types": levels}
    parts = {
        "text_encoder": theirs.convert_ldm_clip_checkpoint(dict(tensors)),
        "unet": theirs.convert_ldm_unet_checkpoint(
            dict(tensors), {"layers_per_block": anatomy.unet.layers_per_block}
        ),
        "vae": theirs.convert_ldm_vae_checkpoint(dict(tensors), vae),
    }
    return {part: {k: v.numpy() for k, v in found.items()} for part, found in parts.items()}


def numbered(shapes: Mapping[str, list[int]], first: int) -> dict[str, np.ndarray]:
    """Tensors that can be told apart by their values."""
    return {name: np.full(shape, first + i) for i, (name, shape) in enumerate(shapes.items())}


def main() -> None:
    golden = {}
    for anatomy in CHOSEN:
        names = oracles.names_of(oracles.oracles(ANATOMIES[anatomy]))
        parts = {part: numbered(names[part], 10_000 * i) for i, part in enumerate(names)}
        flat = compvis(parts, ANATOMIES[anatomy])
        there = {int(v.flat[0]): (name, v.shape) for name, v in flat.items()}
        golden[anatomy] = {
            part: {k: [v.shape, *there[int(v.flat[0])]] for k, v in found.items()}
            for part, found in converted(flat, ANATOMIES[anatomy]).items()
        }
        assert {p: set(v) for p, v in golden[anatomy].items()} == {
            p: set(v) for p, v in names.items()
        }
    packed = json.dumps(golden, separators=(",", ":")).encode("ascii")
    GOLDEN.write_bytes(gzip.compress(packed, mtime=0))
    print(f"{len(golden)} anatomies, {GOLDEN.stat().st_size:,} bytes → {GOLDEN.name}")


if __name__ == "__main__":
    main()
