"""What the names and shapes of tensors tell of a network: its config, where no file says it.

All that leaves no trace in them is as in SD 1.x: 8 heads and 32 groups, the pictures' size and
the latents' scale.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..config import CLIPTextConfig, UNetConfig, VAEConfig, to_dict

Shapes = Mapping[str, tuple[int, ...]]

HEAD_WIDTH = 64  # of CLIP, in all its sizes


def unet_config(shapes: Shapes) -> UNetConfig:
    widths = block_widths(shapes, "down_blocks")
    contexts = [shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")]
    return UNetConfig(
        in_channels=shapes["conv_in.weight"][1],
        out_channels=shapes["conv_out.weight"][0],
        block_out_channels=widths,
        layers_per_block=count(shapes, r"down_blocks\.0\.resnets\.(\d+)\."),
        down_block_types=block_types(shapes, "down_blocks", len(widths), "{}DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn" if begins(shapes, "mid_block.") else None,
        up_block_types=block_types(shapes, "up_blocks", len(widths), "{}UpBlock2D"),
        cross_attention_dim=contexts[0] if contexts else UNetConfig.cross_attention_dim,
    )


def vae_config(shapes: Shapes) -> VAEConfig:
    return VAEConfig(
        in_channels=shapes["encoder.conv_in.weight"][1],
        out_channels=shapes["decoder.conv_out.weight"][0],
        latent_channels=shapes["decoder.conv_in.weight"][1],
        block_out_channels=block_widths(shapes, "encoder.down_blocks"),
        layers_per_block=count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
    )


def text_config(shapes: Shapes) -> CLIPTextConfig:
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=count(shapes, r"text_model\.encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        max_position_embeddings=shapes["text_model.embeddings.position_embedding.weight"][0],
    )


CONFIGS = {"text_encoder": text_config, "unet": unet_config, "vae": vae_config}


def config_of(part: str, shapes: Shapes) -> dict[str, Any]:
    """diffusers' config of 'text_encoder', 'unet' or 'vae', whose tensors have these diffusers
    names and shapes. Raises KeyError, or IndexError, where a tensor that tells it is missing or
    misshapen."""
    return to_dict(CONFIGS[part](shapes))


def block_widths(shapes: Shapes, blocks: str) -> tuple[int, ...]:
    levels = count(shapes, rf"{re.escape(blocks)}\.(\d+)\.")
    return tuple(shapes[f"{blocks}.{i}.resnets.0.conv1.weight"][0] for i in range(levels))


def block_types(shapes: Shapes, blocks: str, levels: int, kind: str) -> tuple[str, ...]:
    return tuple(
        kind.format("CrossAttn" if begins(shapes, f"{blocks}.{i}.attentions.") else "")
        for i in range(levels)
    )


def begins(names: Iterable[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


def count(names: Iterable[str], pattern: str) -> int:
    """How many numbers the group of the pattern takes, at the beginning of the names."""
    return len({found[1] for name in names if (found := re.match(pattern, name))})
