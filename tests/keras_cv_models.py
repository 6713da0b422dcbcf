"""keras-cv's networks of Stable Diffusion: its own classes, but narrow.

keras-cv wants tensorflow_datasets when it is imported, of which Stable Diffusion uses nothing: an
empty module stands in for it. Its classes know one size only; here the sizes that they are written
with are exchanged for small ones while they build.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import keras
from keras import ops

TEXT = {768: 128, 12: 2}  # width, heads
UNET = {320: 32, 640: 64, 1280: 128, 768: 128, 40: 4, 80: 8, 160: 16}  # widths, widths of a head
VAE = {128: 32, 256: 64, 512: 96}
LAYERS = {  # module → what it builds its network of, besides Keras' own layers
    "text_encoder": ("CLIPEmbedding", "CLIPEncoderLayer"),
    "diffusion_model": ("PaddedConv2D", "ResBlock", "SpatialTransformer", "Upsample"),
    "decoder": ("PaddedConv2D", "ResnetBlock", "AttentionBlock"),
    "image_encoder": ("PaddedConv2D", "ResnetBlock", "AttentionBlock"),
}


def module(name: str) -> ModuleType:
    sys.modules["tensorflow_datasets"] = ModuleType("tensorflow_datasets")
    try:
        return import_module(f"keras_cv.src.models.stable_diffusion.{name}")
    finally:
        del sys.modules["tensorflow_datasets"]


def models(side: int = 128) -> SimpleNamespace:
    """By keras-cv's names. side: of the pictures, in pixels."""
    with narrow("text_encoder", TEXT) as m:
        text_encoder = m.TextEncoder(77, vocab_size=500, download_weights=False)
    with narrow("diffusion_model", UNET) as m:
        diffusion_model = m.DiffusionModel(side, side, 77, download_weights=False)
    with narrow("image_encoder", VAE) as m:
        image_encoder = m.ImageEncoder(download_weights=False)
    with narrow("decoder", VAE) as m:
        decoder = m.Decoder(side, side, download_weights=False)
    return SimpleNamespace(
        text_encoder=text_encoder,
        diffusion_model=diffusion_model,
        image_encoder=image_encoder,
        decoder=decoder,
    )


@contextmanager
def narrow(name: str, sizes: Mapping[int, int]) -> Iterator[ModuleType]:
    """The module, whose networks are built inside with other sizes."""

    def exchanged(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(exchanged, value))
        return sizes.get(value, value) if isinstance(value, int) else value

    def with_sizes(make: Any) -> Any:
        return lambda *args, **named: make(*map(exchanged, args), **named)

    inside = module(name)
    ours = {layer: with_sizes(getattr(inside, layer)) for layer in LAYERS[name]}
    of_keras = {layer: with_sizes(getattr(keras.layers, layer)) for layer in ("Dense", "Input")}
    with mock.patch.multiple(inside, **ours), mock.patch.multiple(keras.layers, **of_keras):
        yield inside


# --- the numbers that keras-cv has wrong --------------------------------------------------------


def put_right(models: SimpleNamespace) -> None:
    """ε where SD 1.x has 1e-6, and the exact GELU."""
    for vae in (models.image_encoder, models.decoder):
        set_epsilon(vae)
    for layer in models.diffusion_model.layers:
        if type(layer).__name__ == "SpatialTransformer":
            layer.norm.epsilon = 1e-6
            layer.transformer_block.geglu.call = exact_geglu(layer.transformer_block.geglu)


def set_epsilon(network: keras.Model) -> None:
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.GroupNormalization):
            layer.epsilon = 1e-6


def exact_geglu(layer: keras.layers.Layer) -> Any:
    def call(x):
        x, gate = ops.split(layer.dense(x), 2, axis=-1)
        return x * ops.gelu(gate, approximate=False)

    return call
