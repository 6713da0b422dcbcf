"""CompVis' names → diffusers' names, part by part.

Both tell the same networks: CompVis counts the blocks of the UNet in a row, diffusers by level
and layer; CompVis counts the VAE's way up from the bottom, diffusers from the top. Names as in
github.com/CompVis/stable-diffusion: openaimodel.py and model.py.
"""

import re
from collections.abc import Iterable, Mapping

from .anatomy import count
from .folder import OTHER_NAMES

Rules = list[tuple[str, str]]  # patterns, and what they become, one after the other


def text_rules(names: Iterable[str]) -> Rules:
    return list(OTHER_NAMES["text_encoder"])


def unet_rules(names: Iterable[str]) -> Rules:
    names = list(names)
    total = count(names, r"input_blocks\.(\d+)\.")
    levels = 1 + count(names, r"input_blocks\.(\d+)\.0\.op\.")
    per_level = max(1, total // levels)  # on the way down: its residual blocks, its change of size
    places = [
        *((f"input_blocks.{i}", "down", *divmod(i - 1, per_level)) for i in range(1, total)),
        *((f"output_blocks.{i}", "up", *divmod(i, per_level)) for i in range(total)),
    ]
    return [
        (r"^time_embed\.0\.", "time_embedding.linear_1."),
        (r"^time_embed\.2\.", "time_embedding.linear_2."),
        (r"^input_blocks\.0\.0\.", "conv_in."),
        *(rule for place in places for rule in block_rules(*place)),
        (r"^middle_block\.0\.", "mid_block.resnets.0."),
        (r"^middle_block\.1\.", "mid_block.attentions.0."),
        (r"^middle_block\.2\.", "mid_block.resnets.1."),
        (r"^out\.0\.", "conv_norm_out."),
        (r"^out\.2\.", "conv_out."),
        (r"\.in_layers\.0\.", ".norm1."),
        (r"\.in_layers\.2\.", ".conv1."),
        (r"\.emb_layers\.1\.", ".time_emb_proj."),
        (r"\.out_layers\.0\.", ".norm2."),
        (r"\.out_layers\.3\.", ".conv2."),
        (r"\.skip_connection\.", ".conv_shortcut."),
    ]


def block_rules(there: str, way: str, level: int, layer: int) -> Rules:
    """Of one block in the row: a residual block, its attention if any, a change of size if any."""
    there, here = rf"^{there}\.", f"{way}_blocks.{level}"
    return [
        (rf"{there}0\.op\.", f"{here}.downsamplers.0.conv."),
        (rf"{there}[12]\.conv\.", f"{here}.upsamplers.0.conv."),
        (rf"{there}0\.", f"{here}.resnets.{layer}."),
        (rf"{there}1\.", f"{here}.attentions.{layer}."),
    ]


def vae_rules(names: Iterable[str]) -> Rules:
    levels = count(names, r"decoder\.up\.(\d+)\.")
    return [
        (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
        (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
        *(
            rule
            for i in range(levels)
            for rule in (
                (rf"\.up\.{i}\.block\.", f".up_blocks.{levels - 1 - i}.resnets."),
                (rf"\.up\.{i}\.upsample\.", f".up_blocks.{levels - 1 - i}.upsamplers.0."),
            )
        ),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
        (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
        (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
    ]


RULES = {"text_encoder": text_rules, "unet": unet_rules, "vae": vae_rules}


def linear_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """diffusers name → shape of the VAE's projections, linear there, 1×1 convolutions here."""
    return {
        name: shape[:2]
        for name, shape in shapes.items()
        if re.search(r"mid_block\.attentions\.0\.to_.*weight$", name) and set(shape[2:]) == {1}
    }
