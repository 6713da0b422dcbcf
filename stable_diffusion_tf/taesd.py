"""TAESD, the tiny autoencoder: image ↔ latent at a hundredth of the VAE's cost, for previews.

Ollin Boer Bohan's, MIT licence; the twin of diffusers' AutoencoderTiny. Its latents are those that
the UNet sees, already scaled: nothing is to be multiplied by the VAE's `scaling_factor`. Encoder
and decoder are two networks, so that each can be loaded alone; both bear the name `taesd`.
"""

from collections.abc import Callable, Iterator
from functools import partial

import keras
from keras import ops

from .config import TAESDConfig
from .layers import LAST, Block, Network, build, conv

Maker = Callable[..., keras.layers.Layer]


class TinyBlock(Block):
    """Three convolutions with ReLU between them, added to what came in, and ReLU."""

    def __init__(self, width: int, **options):
        super().__init__(**options)
        self.convs = [conv(width, 3, f"conv-{i}") for i in (0, 2, 4)]

    def call(self, x):  # (b, h, w, c)
        first, second, third = self.convs
        y = third(ops.relu(second(ops.relu(first(x)))))
        return ops.relu(x + y)


class Halve(Block):
    """Half the size by a convolution of stride 2, after zeros on every side; no bias."""

    def __init__(self, width: int, **options):
        super().__init__(**options)
        self.width = width

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], self.width), name="kernel")

    def call(self, x):  # (b, h, w, c)
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return ops.conv(x, self.kernel, strides=2, padding="valid", **LAST)  # (b, h/2, w/2, width)


class Stack(Block):
    """Layers one after another, each named by its place, as in torch's Sequential."""

    def __init__(self, makers: Iterator[Maker], **options):
        super().__init__(**options)
        self.layers = [make(name=f"layers-{i}") for i, make in enumerate(makers)]

    def call(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def encoder_layers(config: TAESDConfig) -> Iterator[Maker]:
    for level, count in enumerate(config.num_encoder_blocks):
        width = config.encoder_block_out_channels[level]
        yield partial(Halve, width) if level else partial(conv, width, 3)
        yield from [partial(TinyBlock, width)] * count
    yield partial(conv, config.latent_channels, 3)


def decoder_layers(config: TAESDConfig) -> Iterator[Maker]:
    widths, last = config.decoder_block_out_channels, len(config.num_decoder_blocks) - 1
    yield partial(conv, widths[0], 3)
    yield keras.layers.ReLU
    for level, count in enumerate(config.num_decoder_blocks):
        yield from [partial(TinyBlock, widths[level])] * count
        if level < last:
            yield partial(keras.layers.UpSampling2D, 2, interpolation="nearest", **LAST)
            yield partial(
                keras.layers.Conv2D, widths[level], 3, padding="same", use_bias=False, **LAST
            )
    yield partial(conv, config.out_channels, 3)


class TAESDEncoder(Network):
    """Images (b, H, W, 3) in [-1, 1] → latents (b, h, w, 4), as the UNet sees them."""

    def __init__(self, config: TAESDConfig, name: str = "taesd"):
        super().__init__(name=name)
        self.encoder = Stack(encoder_layers(config), name="encoder")

    def call(self, images):
        return self.encoder((images + 1) / 2)


class TAESDDecoder(Network):
    """Latents (b, h, w, 4), as the UNet sees them → images (b, H, W, 3), about [-1, 1]."""

    def __init__(self, config: TAESDConfig, name: str = "taesd"):
        super().__init__(name=name)
        self.decoder = Stack(decoder_layers(config), name="decoder")

    def call(self, latents):
        x = 3 * ops.tanh(latents / 3)  # an outlier does no more than this
        return 2 * self.decoder(x) - 1


def build_taesd_encoder(config: TAESDConfig) -> TAESDEncoder:
    side = 2 * config.factor
    return build(TAESDEncoder(config), keras.KerasTensor((1, side, side, config.in_channels)))


def build_taesd_decoder(config: TAESDConfig) -> TAESDDecoder:
    return build(TAESDDecoder(config), keras.KerasTensor((1, 2, 2, config.latent_channels)))
