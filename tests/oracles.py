"""The oracles: diffusers' and transformers' networks, small, with weights that anyone can draw.

A tensor is drawn from its diffusers name by NumPy alone, so that our networks get the oracle's
weights without torch. torch, diffusers and transformers are imported only where they are used.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from zlib import crc32

import numpy as np
from safetensors.numpy import save_file

from phantom.train.diffusion import UNET as PHANTOM_UNET
from phantom.train.silent import UNET as TWO_LEVELS
from phantom.train.text import TEXT as PHANTOM_TEXT
from phantom.train.vae import CONFIG as PHANTOM_VAE
from stable_diffusion_tf.checkpoint.folder import FILES
from stable_diffusion_tf.checkpoint.write import write_json
from stable_diffusion_tf.config import CLIPTextConfig, TAESDConfig, UNetConfig, VAEConfig, to_dict

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


@dataclass(frozen=True)
class Anatomy:
    """The three networks of a checkpoint, and the size of the latents that they are tried on."""

    text_encoder: CLIPTextConfig
    unet: UNetConfig
    vae: VAEConfig
    cells: tuple[int, int]  # height, width


ANATOMIES = {
    "phantom": Anatomy(PHANTOM_TEXT, PHANTOM_UNET, PHANTOM_VAE, (16, 16)),
    "two levels": Anatomy(PHANTOM_TEXT, TWO_LEVELS, PHANTOM_VAE, (16, 16)),
    "sd1": Anatomy(
        CLIPTextConfig(1000, 48, 192, num_hidden_layers=4, num_attention_heads=6),
        UNetConfig(block_out_channels=(32, 64, 96, 96), cross_attention_dim=48, norm_num_groups=16),
        VAEConfig(block_out_channels=(16, 32, 48, 48), norm_num_groups=16),
        (8, 16),
    ),
    "bk-sdm-base": Anatomy(
        CLIPTextConfig(1000, 32, 128, num_hidden_layers=2, num_attention_heads=4),
        UNetConfig(
            block_out_channels=(32, 64, 128, 128),
            layers_per_block=1,
            cross_attention_dim=32,
        ),
        VAEConfig(block_out_channels=(32, 32, 64, 64), layers_per_block=1),
        (16, 8),
    ),
    "bk-sdm-tiny": Anatomy(
        CLIPTextConfig(1000, 32, 128, num_hidden_layers=2, num_attention_heads=8),
        UNetConfig(
            block_out_channels=(32, 64, 128),
            layers_per_block=1,
            down_block_types=(CROSS_DOWN,) * 3,
            mid_block_type=None,
            up_block_types=(CROSS_UP,) * 3,
            sample_size=8,
            attention_head_dim=8,
            cross_attention_dim=32,
        ),
        VAEConfig(block_out_channels=(32, 64), layers_per_block=1),
        (8, 12),
    ),
    "odd": Anatomy(
        CLIPTextConfig(501, 40, 72, num_hidden_layers=3, num_attention_heads=2),
        UNetConfig(
            block_out_channels=(24, 40, 56),
            down_block_types=(CROSS_DOWN, "DownBlock2D", CROSS_DOWN),
            up_block_types=(CROSS_UP, "UpBlock2D", CROSS_UP),
            sample_size=12,
            attention_head_dim=4,
            cross_attention_dim=40,
            norm_num_groups=8,
        ),
        VAEConfig(block_out_channels=(24, 16, 40), norm_num_groups=8, scaling_factor=0.5),
        (12, 20),
    ),
}
LCM = Anatomy(  # its UNet takes a fourth input, so it is not one of those above
    CLIPTextConfig(49408, 16, 32, num_hidden_layers=2, num_attention_heads=2),
    UNetConfig(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=(CROSS_DOWN, "DownBlock2D"),
        up_block_types=("UpBlock2D", CROSS_UP),
        sample_size=8,
        attention_head_dim=4,
        cross_attention_dim=16,
        time_cond_proj_dim=24,
    ),
    VAEConfig(block_out_channels=(32, 32), layers_per_block=1),
    (8, 12),
)
TAESD = TAESDConfig(
    encoder_block_out_channels=(8, 8, 8),
    decoder_block_out_channels=(12, 12, 12),
    num_encoder_blocks=(1, 2, 1),
    num_decoder_blocks=(2, 1, 1),
)

# --- weights and inputs that are drawn ----------------------------------------------------------

FAINT = 0.03
LOUD = re.compile(  # what no norm sees; the names of layers, whole
    r"(^|\.)(to_[qkv]|[qkv]_proj|cond_proj|proj|fc1|linear_\d|conv_out|(post_)?quant_conv)\.\w+$"
)

Names = dict[str, dict[str, list[int]]]  # part → name → shape


def draw(name: str, shape: Sequence[int]) -> np.ndarray:
    """The tensor of that diffusers name, float32, the same everywhere.

    All that a norm gets to see is made faint: were it of order one, the norms' ε, which differ
    from place to place, would be lost in it. `RandomState` is the generator whose stream NumPy
    has promised never to change.
    """
    parent, kind = name.split(".")[-2:]
    value = np.random.RandomState(crc32(name.encode())).standard_normal(shape)
    if "norm" in parent:
        return ((kind == "weight") + 0.3 * value).astype(np.float32)
    inputs = 1 if kind == "bias" or "embedding" in parent else np.prod(shape[1:])
    gain = (1.0 if LOUD.search(name) else FAINT) * (0.3 if kind == "bias" else 1.0)
    return (gain * inputs**-0.5 * value).astype(np.float32)


def draw_loud(name: str, shape: Sequence[int]) -> np.ndarray:
    """The same for a network without norms, where nothing need be faint."""
    return draw(name, shape) / np.float32(FAINT)


def write(folder: Path, anatomy: Anatomy, names: Names) -> None:
    """A checkpoint folder with drawn weights, without torch."""
    for part, shapes in names.items():
        write_json(folder / part / "config.json", to_dict(getattr(anatomy, part)))
        save_file({k: draw(k, v) for k, v in shapes.items()}, folder / part / FILES[part])


def random_array(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal, float32, the same everywhere."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def inputs(anatomy: Anatomy) -> dict[str, tuple[np.ndarray, ...]]:
    """What each of our networks is tried on."""
    h, w = anatomy.cells
    latent = random_array(2, h, w, 4)
    context = random_array(2, 77, anatomy.unet.cross_attention_dim, seed=1)
    pictures = random_array(2, h * anatomy.vae.factor, w * anatomy.vae.factor, 3, seed=2)
    ids = np.random.RandomState(3).randint(anatomy.text_encoder.vocab_size, size=(3, 77))
    return {
        "text_encoder": (ids.astype(np.int32),),
        "unet": (latent, np.array([981, 20], np.int32), context),
        "encoder": (np.tanh(pictures),),
        "decoder": (latent,),
    }


def parting(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference as a share of the largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


# --- the oracles' networks ----------------------------------------------------------------------

PREFIX = "text_model."  # of a text encoder's names in all files, but not in transformers 5


def oracles(anatomy: Anatomy) -> SimpleNamespace:
    """The three models by part, filled with drawn weights, float32."""
    return SimpleNamespace(
        text_encoder=filled(text_encoder(anatomy.text_encoder), PREFIX),
        unet=filled(unet(anatomy.unet)),
        vae=filled(vae(anatomy.vae)),
    )


def as_torch_draws_them(anatomy: Anatomy) -> SimpleNamespace:
    """The three models by part, with the weights that torch's seed gives them, float32."""
    models = text_encoder(anatomy.text_encoder), unet(anatomy.unet), vae(anatomy.vae)
    ready = (model.eval().requires_grad_(False) for model in models)
    return SimpleNamespace(**dict(zip(("text_encoder", "unet", "vae"), ready, strict=True)))


def text_encoder(config: CLIPTextConfig) -> Any:
    import transformers

    special = {"bos_token_id": 0, "eos_token_id": 1}  # inside of small vocabularies; not used here
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(**to_dict(config), hidden_act="quick_gelu", **special)
    )


def unet(config: UNetConfig) -> Any:
    import diffusers

    return diffusers.UNet2DConditionModel(**to_dict(config))


def vae(config: VAEConfig) -> Any:
    import diffusers

    levels = len(config.block_out_channels)
    return diffusers.AutoencoderKL(
        **to_dict(config),
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
    )


def taesd(config: TAESDConfig) -> Any:
    import diffusers

    return diffusers.AutoencoderTiny(**to_dict(config))


def filled(model: Any, prefix: str = "", draw: Callable = draw) -> Any:
    """The torch module in evaluation, every tensor drawn by the prefix and its name."""
    import torch

    drawn = {k: draw(prefix + k, v.shape) for k, v in model.state_dict().items()}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in drawn.items()})
    return model.eval().requires_grad_(False)


def names_of(models: SimpleNamespace) -> Names:
    """The tensors of the models, as files call them."""
    return {
        part: {
            (PREFIX if part == "text_encoder" else "") + name: list(tensor.shape)
            for name, tensor in model.state_dict().items()
        }
        for part, model in vars(models).items()
    }


def save(models: SimpleNamespace, folder: Path) -> None:
    """A checkpoint folder, each part written by its own library."""
    for part, model in vars(models).items():
        model.save_pretrained(folder / part)


def sharpen(models: SimpleNamespace) -> None:
    """From here on the models compute in float64. In float32 torch's GroupNorm alone is up to
    3e-4 off where the mean of a group is far larger than its deviation; ours is at 1e-5 there."""
    for model in vars(models).values():
        model.double()


# --- the oracles' answers: channels last, NumPy in and out -------------------------------------


def answers(models: SimpleNamespace, asked: dict[str, tuple[np.ndarray, ...]]) -> dict:
    """What the models make of `inputs`, by the names of our networks."""
    return {
        "text_encoder": context_of(models.text_encoder, *asked["text_encoder"]),
        "unet": noise_of(models.unet, *asked["unet"]),
        "encoder": moments_of(models.vae, *asked["encoder"]),
        "decoder": images_of(models.vae, *asked["decoder"]),
    }


def context_of(model: Any, ids: np.ndarray) -> np.ndarray:
    import torch

    return model(torch.from_numpy(ids).long()).last_hidden_state.numpy()


def noise_of(model: Any, latent: np.ndarray, t: np.ndarray, context: np.ndarray) -> np.ndarray:
    import torch

    context = torch.from_numpy(context).to(model.dtype)
    return to_numpy(model(to_torch(latent, model), torch.from_numpy(t), context).sample)


def guided_noise_of(
    model: Any, latent: np.ndarray, t: np.ndarray, context: np.ndarray, guidance: np.ndarray
) -> np.ndarray:
    """What an LCM answers; guidance: its embedding, (b, width)."""
    import torch

    context, guidance = (torch.from_numpy(a).to(model.dtype) for a in (context, guidance))
    x, t = to_torch(latent, model), torch.from_numpy(t)
    return to_numpy(model(x, t, context, timestep_cond=guidance).sample)


def latents_of(model: Any, images: np.ndarray) -> np.ndarray:
    """TAESD's encoder."""
    return to_numpy(model.encode(to_torch(images, model)).latents)


def moments_of(model: Any, images: np.ndarray) -> np.ndarray:
    return to_numpy(model.encode(to_torch(images, model)).latent_dist.parameters)


def images_of(model: Any, latents: np.ndarray) -> np.ndarray:
    return to_numpy(model.decode(to_torch(latents, model)).sample)


def to_torch(array: np.ndarray, model: Any) -> Any:
    """(b, h, w, c) → (b, c, h, w), in the dtype of the model."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).to(model.dtype)


def to_numpy(tensor: Any) -> np.ndarray:
    """(b, c, h, w) → (b, h, w, c)."""
    return np.ascontiguousarray(tensor.numpy().transpose(0, 2, 3, 1))


# --- the oracles' loops ------------------------------------------------------------------------


def ddim() -> Any:
    """diffusers' DDIM scheduler as SD 1.x sets it."""
    import diffusers

    return diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def lcm() -> Any:
    """diffusers' LCM scheduler as LCM_Dreamshaper_v7 sets it."""
    import diffusers

    return diffusers.LCMScheduler(beta_start=0.00085, beta_end=0.012, original_inference_steps=50)


@contextmanager
def given_noise(noise: Iterator[Any]) -> Iterator[None]:
    """diffusers' LCM scheduler draws its noise by itself: inside it gets these tensors in turn."""
    target = "diffusers.schedulers.scheduling_lcm.randn_tensor"
    with mock.patch(target, lambda *_, **__: next(noise)):
        yield


def noise_between_steps(seed: int, shape: tuple[int, ...], model: Any) -> Iterator[Any]:
    """What our loop draws between its steps, as tensors for the model."""
    rng = np.random.default_rng([seed, 1])
    while True:
        yield to_torch(rng.standard_normal(shape, np.float32), model)


def pipeline(models: SimpleNamespace) -> Any:
    """StableDiffusionPipeline with DDIM as SD 1.x has it. Nothing for it comes from a network."""
    import diffusers

    made = diffusers.StableDiffusionPipeline(
        **vars(models),
        tokenizer=None,
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made
