"""The shape of each network: a frozen dataclass, read from and written to diffusers' config.json.

The fields bear the names that diffusers and transformers gave them; the defaults are SD 1.x.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from .errors import UsageError

Config = TypeVar("Config")


@dataclass(frozen=True)
class CLIPTextConfig:
    """The text encoder: a causal transformer over 77 tokens."""

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True)
class UNetConfig:
    """The denoiser. `attention_head_dim` is, by an old slip, the number of heads.

    `time_cond_proj_dim`: the width of the guidance embedding that a latent consistency model (LCM)
    takes beside the timestep; None in all others.
    """

    sample_size: int = 64
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    down_block_types: tuple[str, ...] = (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[str, ...] = ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3)
    attention_head_dim: int = 8
    cross_attention_dim: int = 768
    norm_num_groups: int = 32
    time_cond_proj_dim: int | None = None


@dataclass(frozen=True)
class VAEConfig:
    """The image encoder and decoder."""

    sample_size: int = 512
    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215

    @property
    def factor(self) -> int:
        """Pixels along the side of one latent cell."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class TAESDConfig:
    """The tiny autoencoder: how many blocks each level of the encoder and the decoder has."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)

    @property
    def factor(self) -> int:
        """Pixels along the side of one latent cell."""
        return 2 ** (len(self.num_decoder_blocks) - 1)


BUILT_IN = {  # settings that may leave no trace in the weights, and what they are in SD 1.x
    CLIPTextConfig: {"hidden_act": "quick_gelu"},
    UNetConfig: {
        "act_fn": "silu",
        "center_input_sample": False,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "resnet_out_scale_factor": 1,
        "resnet_skip_time_act": False,
        "use_linear_projection": False,
    },
    VAEConfig: {"act_fn": "silu", "shift_factor": None},
    TAESDConfig: {
        "act_fn": "relu",
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "upsample_fn": "nearest",
        "upsampling_scaling_factor": 2,
    },
}


def from_dict(cls: type[Config], found: dict[str, Any]) -> Config:
    """A config from a config.json; keys that `cls` does not have are left alone, unless they ask
    for what is not built here: then UsageError says so, as the numbers would be wrong."""
    for name, here in BUILT_IN.get(cls, {}).items():
        if found.get(name, here) != here:
            raise UsageError(
                f"a {cls.__name__} with {name} {found[name]!r} is not supported, only {here!r}: "
                f"this is Stable Diffusion 1.x"
            )
    names = {f.name for f in fields(cls)}
    known = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items() if k in names}
    return cls(**known)


def to_dict(config: Any) -> dict[str, Any]:
    """The config as JSON would hold it (lists, not tuples)."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
