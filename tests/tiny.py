"""The smallest networks that have every kind of layer, and their weights as arrays."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from stable_diffusion_tf.checkpoint.names import variables
from stable_diffusion_tf.checkpoint.write import write_part
from stable_diffusion_tf.clip import build_clip
from stable_diffusion_tf.config import CLIPTextConfig, UNetConfig, VAEConfig
from stable_diffusion_tf.unet import build_unet
from stable_diffusion_tf.vae import build_decoder, build_encoder

TEXT = CLIPTextConfig(
    vocab_size=20,
    hidden_size=12,  # as wide as what the UNet attends to
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=6,
)
UNET = UNetConfig(
    block_out_channels=(8,),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D",),
    mid_block_type=None,
    up_block_types=("CrossAttnUpBlock2D",),
    attention_head_dim=2,
    cross_attention_dim=12,
    norm_num_groups=4,
)
VAE = VAEConfig(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2)
PARTS = {  # part → its folder, its config, how it is built
    "text_encoder": ("text_encoder", TEXT, build_clip),
    "unet": ("unet", UNET, build_unet),
    "encoder": ("vae", VAE, build_encoder),
    "decoder": ("vae", VAE, build_decoder),
}


def values(network: keras.Model) -> dict[str, np.ndarray]:
    return {
        name: keras.ops.convert_to_numpy(variable) for name, variable in variables(network).items()
    }


def scramble(network: keras.Model, seed: int = 0) -> keras.Model:
    """The network with other weights, norms and biases too."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        variable.assign(rng.standard_normal(variable.shape, dtype=np.float32))
    return network


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


# A model that is drawn with: it hears every prompt, and its numbers stay near one.
HEARING = replace(TEXT, vocab_size=49408, max_position_embeddings=77)
DRAWING = replace(UNET, sample_size=8, up_block_types=("UpBlock2D",))


def write_model(folder: Path, unet: UNetConfig = DRAWING) -> Path:
    """The folder, with a whole model so small that it is compiled at once."""
    for part, config in {"text_encoder": HEARING, "unet": unet, "vae": VAE}.items():
        write_part_drawn(folder, part, config)
    return folder


def write_part_drawn(folder: Path, part: str, config) -> None:
    """A part of such a model."""
    networks = [build(config) for place, _, build in PARTS.values() if place == part]
    for network in networks:
        for variable in scramble(network).weights:
            variable.assign(variable * 0.3)
    write_part(folder, part, config, networks, "float32")
