"""The denoising UNet: latent, timestep, context → noise.

Rombach et al., arXiv 2112.10752; Ho et al., arXiv 2006.11239, appendix B. One implementation
builds SD 1.x, its distillations (fewer blocks, no mid block, three levels) and the phantom.
"""

import math

import keras
import numpy as np
from keras import ops

from .attention import SpatialTransformer
from .config import UNetConfig
from .layers import (
    Block,
    Downsample,
    GroupNorm,
    Network,
    ResnetBlock,
    Tap,
    Upsample,
    build,
    conv,
    silu,
)

EPSILON = 1e-5
ALL_AROUND = ((1, 1), (1, 1))
AT_ONCE = 512e6  # bytes that a call holds at the least, where more latents could wait


def timestep_embedding(t, width: int):
    """[cos, sin] of t at frequencies exp(−ln 10000 · i / half), (b,) → (b, width).

    Vaswani et al., arXiv 1706.03762, section 3.5, in the order of Ho et al.
    """
    half = width // 2
    frequencies = np.exp(-math.log(10000) * np.arange(half) / half).astype(np.float32)
    angles = ops.cast(t, "float32")[:, None] * frequencies  # (b, half)
    return ops.concatenate([ops.cos(angles), ops.sin(angles)], axis=-1)


class TimeEmbedding(Block):
    """Linear, SiLU, linear; an LCM first adds a projection of its guidance embedding.

    Luo et al., arXiv 2310.04378, section 4.2; Meng et al., arXiv 2210.03142.
    """

    def __init__(self, width: int, **options):
        super().__init__(**options)
        self.linear_1 = keras.layers.Dense(width, name="linear_1")
        self.linear_2 = keras.layers.Dense(width, name="linear_2")

    def build(self, x_shape, guidance_shape=None):
        if guidance_shape is not None:
            self.cond_proj = keras.layers.Dense(
                x_shape[-1], use_bias=False, name="cond_proj", dtype=self.dtype_policy
            )

    def call(self, x, guidance=None):  # (b, width), (b, guidance width)
        if guidance is not None:
            x = x + self.cond_proj(guidance)
        return self.linear_2(silu(self.linear_1(x)))


class Level(Block):
    """Residual blocks of one width, each followed by a transformer where `attends`."""

    def __init__(self, config: UNetConfig, width: int, count: int, attends: bool, **options):
        super().__init__(**options)
        groups, heads = config.norm_num_groups, config.attention_head_dim
        self.resnets = [
            ResnetBlock(width, groups, EPSILON, name=f"resnets-{i}") for i in range(count)
        ]
        self.attentions = [
            SpatialTransformer(width, heads, groups, name=f"attentions-{i}")
            for i in range(count if attends else 0)
        ]

    def step(self, i: int, x, time, context):
        x = self.resnets[i](x, time)
        return self.attentions[i](x, context) if self.attentions else x


class DownBlock(Level):
    """One level on the way down; returns its output and all that the way up will want."""

    def __init__(self, config: UNetConfig, level: int, **options):
        width, last = config.block_out_channels[level], len(config.block_out_channels) - 1
        attends = "CrossAttn" in config.down_block_types[level]
        super().__init__(config, width, config.layers_per_block, attends, **options)
        self.downsamplers = (
            [Downsample(width, ALL_AROUND, name="downsamplers-0")] if level < last else []
        )

    def call(self, x, time, context):  # (b, h, w, c)
        skips = []
        for i in range(len(self.resnets)):
            x = self.step(i, x, time, context)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)  # (b, h/2, w/2, c)
            skips.append(x)
        return x, skips


class MidBlock(Block):
    """Residual block, transformer, residual block; its output is the h-space."""

    def __init__(self, config: UNetConfig, **options):
        super().__init__(**options)
        width, groups = config.block_out_channels[-1], config.norm_num_groups
        self.before = ResnetBlock(width, groups, EPSILON, name="resnets-0")
        self.attention = SpatialTransformer(
            width, config.attention_head_dim, groups, name="attentions-0"
        )
        self.after = ResnetBlock(width, groups, EPSILON, name="resnets-1")

    def call(self, x, time, context):
        return self.after(self.attention(self.before(x, time), context), time)


class UpBlock(Level):
    """One level on the way up: each residual block first takes the last skip that is left."""

    def __init__(self, config: UNetConfig, level: int, **options):
        width, last = config.block_out_channels[::-1][level], len(config.block_out_channels) - 1
        attends = "CrossAttn" in config.up_block_types[level]
        super().__init__(config, width, config.layers_per_block + 1, attends, **options)
        self.skips = [Tap(name=f"skips-{i}") for i in range(config.layers_per_block + 1)]
        self.upsamplers = [Upsample(width, name="upsamplers-0")] if level < last else []

    def call(self, x, skips, time, context):  # (b, h, w, c), one skip for each residual block
        for i, tap in enumerate(self.skips):
            x = ops.concatenate([x, tap(skips[-1 - i])], axis=-1)  # (b, h, w, c + c')
            x = self.step(i, x, time, context)
        for upsample in self.upsamplers:
            x = upsample(x)  # (b, 2h, 2w, c)
        return x


class UNet(Network):
    """(latent (b, h, w, 4), t (b,), context (b, 77, width)) → noise (b, h, w, 4).

    An LCM takes a fourth input: its guidance embedding, (b, `time_cond_proj_dim`).
    """

    def __init__(self, config: UNetConfig, name: str = "unet"):
        super().__init__(name=name)
        widths = config.block_out_channels
        self.config = config
        self.time_proj = Tap(name="time_proj")
        self.time_embedding = TimeEmbedding(4 * widths[0], name="time_embedding")
        self.conv_in = conv(widths[0], 3, "conv_in")
        self.down_blocks = [
            DownBlock(config, i, name=f"down_blocks-{i}") for i in range(len(widths))
        ]
        self.mid_block = MidBlock(config, name="mid_block") if config.mid_block_type else None
        self.up_blocks = [UpBlock(config, i, name=f"up_blocks-{i}") for i in range(len(widths))]
        self.conv_norm_out = GroupNorm(config.norm_num_groups, EPSILON, name="conv_norm_out")
        self.conv_out = conv(config.out_channels, 3, "conv_out")

    def call(self, latent, t, context, guidance=None):
        time = self.time_proj(timestep_embedding(t, self.config.block_out_channels[0]))
        time = self.time_embedding(time, guidance)  # (b, 4·width)
        x = self.conv_in(latent)
        skips = [x]
        for block in self.down_blocks:
            x, more = block(x, time, context)
            skips += more
        if self.mid_block:
            x = self.mid_block(x, time, context)
        for block in self.up_blocks:
            count = len(block.skips)
            x = block(x, skips[-count:], time, context)
            skips = skips[:-count]
        return self.conv_out(silu(self.conv_norm_out(x)))


def build_unet(config: UNetConfig) -> UNet:
    side, guided = 2 ** len(config.block_out_channels), config.time_cond_proj_dim
    return build(
        UNet(config),
        keras.KerasTensor((1, side, side, config.in_channels)),
        keras.KerasTensor((1,), dtype="int32"),
        keras.KerasTensor((1, 77, config.cross_attention_dim)),
        *([keras.KerasTensor((1, guided))] if guided else []),
    )


def unet_bytes(config: UNetConfig) -> int:
    """What a UNet of floats holds at the least for each position of a latent: at its full size,
    what the first level keeps for the way up and the widened layer of one transformer block."""
    kept = config.layers_per_block + 1
    return 4 * config.block_out_channels[0] * (kept + 8)


def rows_at_once(config: UNetConfig, places: int) -> int:
    """How many latents of so many positions go through a UNet in one call: with Stable Diffusion
    eight of 512×512 pixels."""
    return max(1, int(AT_ONCE / (places * unet_bytes(config))))


def call_bytes(config: UNetConfig, places: int, rows: int) -> int:
    """What a call holds at the least where so many latents are to go through."""
    return min(rows, rows_at_once(config, places)) * places * unet_bytes(config)
