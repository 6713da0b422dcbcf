"""The variational autoencoder: image ↔ latent.

Kingma & Welling, arXiv 1312.6114; the architecture of Rombach et al., arXiv 2112.10752. Encoder
and decoder are two networks, so that each can be loaded and released alone; both bear the name
`vae`, as their weights lie in one folder.
"""

import keras
from keras import ops

from .attention import Attention
from .config import VAEConfig
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

EPSILON = 1e-6
BELOW_AND_RIGHT = ((0, 1), (0, 1))


class MidAttention(Attention):
    """Self-attention with one head over all positions, added to what came in."""

    def __init__(self, width: int, groups: int, **options):
        super().__init__(width, heads=1, bias=True, **options)
        self.group_norm = GroupNorm(groups, EPSILON, name="group_norm")

    def call(self, x):  # (b, h, w, c)
        y = ops.reshape(self.group_norm(x), (-1, x.shape[1] * x.shape[2], x.shape[3]))
        return x + ops.reshape(super().call(y), (-1, *x.shape[1:]))


class MidBlock(Block):
    """Residual block, attention, residual block."""

    def __init__(self, width: int, groups: int, **options):
        super().__init__(**options)
        self.before = ResnetBlock(width, groups, EPSILON, name="resnets-0")
        self.attention = MidAttention(width, groups, name="attentions-0")
        self.after = ResnetBlock(width, groups, EPSILON, name="resnets-1")

    def call(self, x):
        return self.after(self.attention(self.before(x)))


class Level(Block):
    """Residual blocks of one width, then a change of size (or none)."""

    def __init__(self, width: int, count: int, groups: int, resize: tuple, **options):
        super().__init__(**options)
        self.layers = [
            *(ResnetBlock(width, groups, EPSILON, name=f"resnets-{i}") for i in range(count)),
            *resize,
        ]

    def call(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Encoder(Block):
    def __init__(self, config: VAEConfig, **options):
        super().__init__(**options)
        widths, groups = config.block_out_channels, config.norm_num_groups
        last = len(widths) - 1
        self.conv_in = conv(widths[0], 3, "conv_in")
        self.down_blocks = [
            Level(
                width,
                config.layers_per_block,
                groups,
                (Downsample(width, BELOW_AND_RIGHT, name="downsamplers-0"),) if i < last else (),
                name=f"down_blocks-{i}",
            )
            for i, width in enumerate(widths)
        ]
        self.mid_block = MidBlock(widths[-1], groups, name="mid_block")
        self.conv_norm_out = GroupNorm(groups, EPSILON, name="conv_norm_out")
        self.conv_out = conv(2 * config.latent_channels, 3, "conv_out")

    def call(self, x):  # (b, H, W, 3)
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)  # (b, h, w, width)
        return self.conv_out(silu(self.conv_norm_out(x)))  # (b, h, w, 8)


class Decoder(Block):
    def __init__(self, config: VAEConfig, **options):
        super().__init__(**options)
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        last = len(widths) - 1
        self.conv_in = conv(widths[0], 3, "conv_in")
        self.mid_block = MidBlock(widths[0], groups, name="mid_block")
        self.up_blocks = [
            Level(
                width,
                config.layers_per_block + 1,
                groups,
                (Upsample(width, name="upsamplers-0"),) if i < last else (),
                name=f"up_blocks-{i}",
            )
            for i, width in enumerate(widths)
        ]
        self.conv_norm_out = GroupNorm(groups, EPSILON, name="conv_norm_out")
        self.conv_out = conv(config.out_channels, 3, "conv_out")

    def call(self, z):  # (b, h, w, 4)
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(silu(self.conv_norm_out(x)))  # (b, H, W, 3)


class VAEEncoder(Network):
    """Images (b, H, W, 3) in [-1, 1] → the posterior's mean and log-variance, (b, h, w, 8)."""

    def __init__(self, config: VAEConfig, name: str = "vae"):
        super().__init__(name=name)
        self.encoder = Encoder(config, name="encoder")
        self.quant_conv = conv(2 * config.latent_channels, 1, "quant_conv")
        self.moments = Tap(name="moments")

    def call(self, images):
        return self.moments(self.quant_conv(self.encoder(images)))


class VAEDecoder(Network):
    """Latents (b, h, w, 4), not scaled → images (b, H, W, 3), about [-1, 1]."""

    def __init__(self, config: VAEConfig, name: str = "vae"):
        super().__init__(name=name)
        self.post_quant_conv = conv(config.latent_channels, 1, "post_quant_conv")
        self.decoder = Decoder(config, name="decoder")

    def call(self, latents):
        return self.decoder(self.post_quant_conv(latents))


def build_encoder(config: VAEConfig) -> VAEEncoder:
    side = 2 * config.factor
    return build(VAEEncoder(config), keras.KerasTensor((1, side, side, config.in_channels)))


def build_decoder(config: VAEConfig) -> VAEDecoder:
    return build(VAEDecoder(config), keras.KerasTensor((1, 2, 2, config.latent_channels)))


def posterior(moments):
    """Mean and standard deviation, each (b, h, w, 4), of moments (b, h, w, 8); works on any array.

    The latter is exp(½·clip(logvar, −30, 20)), as in CompVis ldm's DiagonalGaussianDistribution.
    """
    mean, logvar = ops.split(moments, 2, axis=-1)
    return mean, ops.exp(0.5 * ops.clip(logvar, -30.0, 20.0))
