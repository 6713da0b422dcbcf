"""A Keras variable and its diffusers tensor."""

import numpy as np
import pytest

from stable_diffusion_tf.checkpoint.names import (
    address,
    diffusers_shape,
    to_diffusers,
    to_keras,
    variables,
)
from tests.tiny import PARTS


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("unet/conv_in/kernel", "unet.conv_in.kernel"),
        ("unet/down_blocks-1/resnets-0/conv1/kernel", "unet.down_blocks.1.resnets.0.conv1.kernel"),
        (
            "unet/mid_block/attentions-0/transformer_blocks-0/attn2/to_out-0/bias",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.bias",
        ),
        (
            "vae/encoder/down_blocks-0/downsamplers-0/conv/kernel",
            "vae.encoder.down_blocks.0.downsamplers.0.conv.kernel",
        ),
    ],
)
def test_an_address_is_the_diffusers_name(path, expected):
    assert address(path) == expected


def test_weights_bear_torchs_names(saved):
    """kernel, gamma and embeddings are all called weight, beta is called bias."""
    names = {part: list(variables(network)) for part, network in saved.networks.items()}
    assert names["text_encoder"][:2] == [
        "text_model.embeddings.token_embedding.weight",
        "text_model.embeddings.position_embedding.weight",
    ]
    layer = "text_model.encoder.layers.0"
    assert {f"{layer}.layer_norm1.weight", f"{layer}.layer_norm1.bias"} < {*names["text_encoder"]}
    assert {f"{layer}.self_attn.q_proj.weight", f"{layer}.mlp.fc2.bias"} < {*names["text_encoder"]}
    block = "up_blocks.0.attentions.1"
    assert {
        "time_embedding.linear_1.weight",
        "down_blocks.0.resnets.0.time_emb_proj.bias",
        "up_blocks.0.resnets.1.conv_shortcut.weight",
        f"{block}.norm.weight",
        f"{block}.proj_in.weight",
        f"{block}.transformer_blocks.0.norm3.bias",
        f"{block}.transformer_blocks.0.attn1.to_out.0.weight",
        f"{block}.transformer_blocks.0.ff.net.0.proj.weight",
        f"{block}.transformer_blocks.0.ff.net.2.bias",
        "conv_norm_out.weight",
    } < {*names["unet"]}
    assert {"quant_conv.weight", "encoder.down_blocks.0.downsamplers.0.conv.bias"} < {
        *names["encoder"]
    }


@pytest.mark.parametrize("part", PARTS)
def test_there_and_back_the_axes_are_the_same(saved, part):
    for variable in variables(saved.networks[part]).values():
        value = np.arange(np.prod(variable.shape)).reshape(variable.shape)
        tensor = to_diffusers(value, variable)
        assert tensor.shape == diffusers_shape(variable)
        np.testing.assert_array_equal(to_keras(tensor, variable), value)
