"""The order in which the Keras ports of Stable Diffusion 1.x keep their weights.

divamgupta/stable-diffusion-tensorflow (the seed) and keras-cv, which grew out of it, have the same
layers in the same order, but for the first three of the UNet. A layer is keras-cv's class and
diffusers' name; one walk over the layers of a network tells the order of its tensors, and the
place where Keras 3 files each.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

Layer = tuple[str, str]  # keras-cv's class, diffusers' name

SUBLAYERS = {  # class → its sublayers in order: where it keeps each, and diffusers' name
    "dense": (("", ""),),
    "group_normalization": (("", ""),),
    "layer_normalization": (("", ""),),
    "padded_conv2d": (("/conv2d", ""),),
    "upsample": (("/conv/conv2d", ""),),
    "clip_embedding": (
        ("/token_embedding", ".token_embedding"),
        ("/position_embedding", ".position_embedding"),
    ),
    "clip_encoder_layer": (
        ("/layer_norm1", ".layer_norm1"),
        ("/clip_attn/q_proj", ".self_attn.q_proj"),
        ("/clip_attn/k_proj", ".self_attn.k_proj"),
        ("/clip_attn/v_proj", ".self_attn.v_proj"),
        ("/clip_attn/out_proj", ".self_attn.out_proj"),
        ("/layer_norm2", ".layer_norm2"),
        ("/fc1", ".mlp.fc1"),
        ("/fc2", ".mlp.fc2"),
    ),
    "res_block": (  # the UNet's
        ("/entry_flow/group_normalization", ".norm1"),
        ("/entry_flow/padded_conv2d/conv2d", ".conv1"),
        ("/embedding_flow/dense", ".time_emb_proj"),
        ("/exit_flow/group_normalization", ".norm2"),
        ("/exit_flow/padded_conv2d/conv2d", ".conv2"),
        ("/residual_projection/conv2d", ".conv_shortcut"),
    ),
    "resnet_block": (  # the VAE's
        ("/norm1", ".norm1"),
        ("/conv1/conv2d", ".conv1"),
        ("/norm2", ".norm2"),
        ("/conv2/conv2d", ".conv2"),
        ("/residual_projection/conv2d", ".conv_shortcut"),
    ),
    "spatial_transformer": (
        ("/norm", ".norm"),
        ("/proj1/conv2d", ".proj_in"),
        ("/transformer_block/norm1", ".transformer_blocks.0.norm1"),
        ("/transformer_block/attn1/to_q", ".transformer_blocks.0.attn1.to_q"),
        ("/transformer_block/attn1/to_k", ".transformer_blocks.0.attn1.to_k"),
        ("/transformer_block/attn1/to_v", ".transformer_blocks.0.attn1.to_v"),
        ("/transformer_block/attn1/out_proj", ".transformer_blocks.0.attn1.to_out.0"),
        ("/transformer_block/norm2", ".transformer_blocks.0.norm2"),
        ("/transformer_block/attn2/to_q", ".transformer_blocks.0.attn2.to_q"),
        ("/transformer_block/attn2/to_k", ".transformer_blocks.0.attn2.to_k"),
        ("/transformer_block/attn2/to_v", ".transformer_blocks.0.attn2.to_v"),
        ("/transformer_block/attn2/out_proj", ".transformer_blocks.0.attn2.to_out.0"),
        ("/transformer_block/norm3", ".transformer_blocks.0.norm3"),
        ("/transformer_block/geglu/dense", ".transformer_blocks.0.ff.net.0.proj"),
        ("/transformer_block/dense", ".transformer_blocks.0.ff.net.2"),
        ("/proj2/conv2d", ".proj_out"),
    ),
    "attention_block": (
        ("/norm", ".group_norm"),
        ("/q/conv2d", ".to_q"),
        ("/k/conv2d", ".to_k"),
        ("/v/conv2d", ".to_v"),
        ("/proj_out/conv2d", ".to_out.0"),
    ),
}
NO_BIAS = re.compile(r"(\.attn[12]\.to_[qkv]|_embedding)\.bias$")
WIDTH_CHANGES = re.compile(  # residual blocks with a shortcut, as their width changes
    r"^(encoder\.)?down_blocks\.[12]\.resnets\.0\."
    r"|^up_blocks\."  # these take a skip connection
    r"|^decoder\.up_blocks\.[23]\.resnets\.0\."
)
LINEAR_1, CONV_IN, LINEAR_2 = (
    ("dense", "time_embedding.linear_1"),
    ("padded_conv2d", "conv_in"),
    ("dense", "time_embedding.linear_2"),
)
SEED_HEAD = (LINEAR_1, LINEAR_2, CONV_IN)  # the seed keeps its layers as they were made
KERAS_CV_HEAD = (LINEAR_1, CONV_IN, LINEAR_2)  # keras-cv as they are called


def tensors(layers: Iterable[Layer]) -> dict[str, str]:
    """diffusers name → the path of the dataset in a `.weights.h5` of Keras 3, in order."""
    found, met = {}, Counter()
    for kind, name in layers:
        place = f"layers/{kind}_{met[kind]}" if met[kind] else f"layers/{kind}"
        met[kind] += 1
        for inside, below in SUBLAYERS[kind]:
            for i, tensor in enumerate(("weight", "bias")):
                found[f"{name}{below}.{tensor}"] = f"{place}{inside}/vars/{i}"
    return {name: path for name, path in found.items() if exists(name)}


def exists(name: str) -> bool:
    """Whether Stable Diffusion 1.x has that tensor of a sublayer."""
    if ".conv_shortcut." in name:
        return WIDTH_CHANGES.search(name) is not None
    return NO_BIAS.search(name) is None


def text_encoder(depth: int) -> Iterator[Layer]:
    yield "clip_embedding", "text_model.embeddings"
    for i in range(depth):
        yield "clip_encoder_layer", f"text_model.encoder.layers.{i}"
    yield "layer_normalization", "text_model.final_layer_norm"


def unet(head: Iterable[Layer]) -> Iterator[Layer]:
    yield from head
    for level in range(4):
        for i in range(2):
            yield "res_block", f"down_blocks.{level}.resnets.{i}"
            if level < 3:
                yield "spatial_transformer", f"down_blocks.{level}.attentions.{i}"
        if level < 3:
            yield "padded_conv2d", f"down_blocks.{level}.downsamplers.0.conv"
    yield "res_block", "mid_block.resnets.0"
    yield "spatial_transformer", "mid_block.attentions.0"
    yield "res_block", "mid_block.resnets.1"
    for level in range(4):
        for i in range(3):
            yield "res_block", f"up_blocks.{level}.resnets.{i}"
            if level > 0:
                yield "spatial_transformer", f"up_blocks.{level}.attentions.{i}"
        if level < 3:
            yield "upsample", f"up_blocks.{level}.upsamplers.0.conv"
    yield "group_normalization", "conv_norm_out"
    yield "padded_conv2d", "conv_out"


def encoder() -> Iterator[Layer]:
    yield "padded_conv2d", "encoder.conv_in"
    for level in range(4):
        for i in range(2):
            yield "resnet_block", f"encoder.down_blocks.{level}.resnets.{i}"
        if level < 3:
            yield "padded_conv2d", f"encoder.down_blocks.{level}.downsamplers.0.conv"
    yield from vae_middle("encoder")
    yield "group_normalization", "encoder.conv_norm_out"
    yield "padded_conv2d", "encoder.conv_out"
    yield "padded_conv2d", "quant_conv"


def decoder() -> Iterator[Layer]:
    yield "padded_conv2d", "post_quant_conv"
    yield "padded_conv2d", "decoder.conv_in"
    yield from vae_middle("decoder")
    for level in range(4):
        for i in range(3):
            yield "resnet_block", f"decoder.up_blocks.{level}.resnets.{i}"
        if level < 3:
            yield "padded_conv2d", f"decoder.up_blocks.{level}.upsamplers.0.conv"
    yield "group_normalization", "decoder.conv_norm_out"
    yield "padded_conv2d", "decoder.conv_out"


def vae_middle(half: str) -> Iterator[Layer]:
    yield "resnet_block", f"{half}.mid_block.resnets.0"
    yield "attention_block", f"{half}.mid_block.attentions.0"
    yield "resnet_block", f"{half}.mid_block.resnets.1"
