"""The shape of each network, and the schedule: a frozen dataclass each, read from and written to
diffusers' config.json.

The fields bear the names that diffusers and transformers gave them; the defaults are SD 1.x.
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

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
        """Pixels along the side of one latent position."""
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
        """Pixels along the side of one latent position."""
        return 2 ** (len(self.num_decoder_blocks) - 1)


@dataclass(frozen=True)
class ScheduleConfig:
    """The schedule that the model was trained with: how β grows over 1000 timesteps; and at which
    of them a run of fewer steps stands (arXiv 2305.08891, table 2)."""

    beta_schedule: str = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    timestep_spacing: str = "leading"


BUILT_IN = {  # settings that may leave no trace in the weights, and what they are in SD 1.x
    CLIPTextConfig: {"hidden_act": "quick_gelu"},
    UNetConfig: {
        "act_fn": "silu",
        "center_input_sample": False,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "num_attention_heads": None,
        "norm_eps": 1e-5,
        "resnet_out_scale_factor": 1,
        "resnet_skip_time_act": False,
        "use_linear_projection": False,
    },
    VAEConfig: {"act_fn": "silu", "in_channels": 3, "out_channels": 3, "shift_factor": None},
    TAESDConfig: {
        "act_fn": "relu",
        "in_channels": 3,
        "out_channels": 3,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "upsample_fn": "nearest",
        "upsampling_scaling_factor": 2,
    },
    ScheduleConfig: {
        "num_train_timesteps": 1000,
        "rescale_betas_zero_snr": False,
        "thresholding": False,
        "trained_betas": None,
    },
}

MOST_LEVELS = 8  # each halves the picture
USUAL, EVEN = range(1, 2**20), range(4, 2**20, 2)
ALLOWED: dict[str, Any] = {  # field → its texts, its whole numbers, or the least and most of it
    "beta_end": (1e-6, 0.5),
    "beta_schedule": ("linear", "scaled_linear"),
    "beta_start": (1e-6, 0.5),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "layer_norm_eps": (1e-12, 0.1),
    "layers_per_block": range(1, 33),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_decoder_blocks": range(1, 33),
    "num_encoder_blocks": range(1, 33),
    "num_hidden_layers": range(1, 129),
    "scaling_factor": (1e-3, 1e3),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
NULL_IS_USUAL = ("sample_size",)  # where diffusers takes null for the default


Relation = tuple[str, str, Callable[[Any], bool]]  # field, what it must be, whether it is


def as_many(field: str, as_field: str) -> Relation:
    return (
        field,
        f"as long as {as_field}",
        lambda config: len(getattr(config, field)) == len(getattr(config, as_field)),
    )


def divisor(field: str, name: str, widths: Callable[[Any], tuple[int, ...]]) -> Relation:
    return (
        field,
        f"a divisor of {name}",
        lambda config: not any(width % getattr(config, field) for width in widths(config)),
    )


def attended(config: UNetConfig) -> tuple[int, ...]:
    """The widths at which there is attention."""
    widths = config.block_out_channels
    down = zip(widths, config.down_block_types, strict=True)
    up = zip(widths[::-1], config.up_block_types, strict=True)
    found = tuple(width for width, kind in (*down, *up) if "CrossAttn" in kind)
    return (*found, widths[-1]) if config.mid_block_type else found


GROUPS = divisor("norm_num_groups", "all block_out_channels", lambda c: c.block_out_channels)
RELATIONS: dict[type, tuple[Relation, ...]] = {
    CLIPTextConfig: (divisor("num_attention_heads", "hidden_size", lambda c: (c.hidden_size,)),),
    UNetConfig: (
        as_many("down_block_types", "block_out_channels"),
        as_many("up_block_types", "block_out_channels"),
        ("out_channels", "as in_channels", lambda c: c.out_channels == c.in_channels),
        divisor("attention_head_dim", "every width with attention", attended),
        GROUPS,
        ("time_cond_proj_dim", "even, from 4", lambda c: (c.time_cond_proj_dim or 4) in EVEN),
    ),
    VAEConfig: (GROUPS,),
    TAESDConfig: (
        as_many("num_encoder_blocks", "encoder_block_out_channels"),
        as_many("num_decoder_blocks", "decoder_block_out_channels"),
        as_many("num_decoder_blocks", "num_encoder_blocks"),
        (
            "decoder_block_out_channels",
            "the same at all levels",
            lambda c: len({*c.decoder_block_out_channels}) == 1,
        ),
    ),
    ScheduleConfig: (
        ("beta_end", "no less than beta_start", lambda c: c.beta_end >= c.beta_start),
    ),
}


def from_dict(cls: type[Config], found: dict[str, Any], place: object = "config.json") -> Config:
    """A config from a config.json; keys that `cls` does not have are left alone, unless they ask
    for what is not built here, as the numbers would be wrong.

    Lists whose values are all the same stand for the value, as diffusers allows. place: what
    errors call the file. Raises UsageError naming the field, its value and what it may be.
    """
    for name, here in BUILT_IN.get(cls, {}).items():
        if found.get(name, here) != here:
            value = reprlib.repr(found[name])
            raise UsageError(
                f"{place}: a {cls.__name__} with {name} {value} is not supported, only {here!r}: "
                f"this is Stable Diffusion 1.x"
            )
    known = {
        field.name: value_of(field, found[field.name], place)
        for field in fields(cls)
        if field.name in found
    }
    return cls(**known)


def check_relations(config: Any, place: object = "config.json") -> None:
    """Raise UsageError where the fields do not go together, so that nothing can be built."""
    for name, wanted, holds in RELATIONS[type(config)]:
        if not holds(config):
            raise UsageError(f"{place}: {name} is {getattr(config, name)!r}; it must be {wanted}")


# Part and field of a model, and those of another part that must be the same.
TOGETHER = (
    ("unet", "cross_attention_dim", "text_encoder", "hidden_size"),
    ("unet", "in_channels", "vae", "latent_channels"),
)


def check_together(configs: Mapping[str, Any], place: object) -> None:
    """Raise UsageError where two of a model's parts, by name, do not fit together."""
    there = [row for row in TOGETHER if row[0] in configs and row[2] in configs]
    for part, name, other, as_name in there:
        one, two = getattr(configs[part], name), getattr(configs[other], as_name)
        if one != two:
            raise UsageError(
                f"{place}: {name} of {part}/config.json is {one}, and {as_name} of "
                f"{other}/config.json is {two}: these parts are of two models"
            )


def value_of(field: Any, value: Any, place: object) -> Any:
    """What a field says, as the dataclass holds it. Raises UsageError for what it may not be."""
    kind, allowed = field.type, ALLOWED.get(field.name, USUAL)
    if get_origin(kind) is not tuple:
        value = one_for_all(value)
    if value is None and field.name in NULL_IS_USUAL:
        return field.default
    if not is_allowed(value, kind, allowed):
        raise UsageError(
            f"{place}: {field.name} is {reprlib.repr(value)}; it must be {told(kind, allowed)}, in "
            f"Stable Diffusion 1.x it is {to_json(field.default)!r}"
        )
    return tuple(value) if get_origin(kind) is tuple else value


def one_for_all(value: Any) -> Any:
    """Of a list with the same value everywhere, the value; all else as it is."""
    several = isinstance(value, list) and value and isinstance(value[0], int)
    return value[0] if several and all(x == value[0] for x in value) else value


def is_allowed(value: Any, kind: Any, allowed: Any) -> bool:
    """Whether a value is of a type as the dataclasses have them, and within what is allowed."""
    if get_origin(kind) is tuple:
        several = isinstance(value, list | tuple) and 0 < len(value) <= MOST_LEVELS
        return several and all(is_allowed(x, get_args(kind)[0], allowed) for x in value)
    if NoneType in get_args(kind):
        return value is None or is_allowed(value, get_args(kind)[0], allowed)
    if kind is float:
        return type(value) in (int, float) and allowed[0] <= value <= allowed[1]
    return type(value) is kind and value in allowed  # by type: to Python, true is 1


def told(kind: Any, allowed: Any) -> str:
    """What a value may be, in words."""
    if get_origin(kind) is tuple:
        return f"a list of 1 to {MOST_LEVELS}, each {told(get_args(kind)[0], allowed)}"
    if NoneType in get_args(kind):
        return f"null or {told(get_args(kind)[0], allowed)}"
    if kind is str:
        return " or ".join(map(repr, allowed))
    whole = "whole " if kind is int else ""
    return f"a {whole}number from {allowed[0]:g} to {allowed[-1]:g}"


def to_dict(config: Any) -> dict[str, Any]:
    """The config as JSON would hold it (lists, not tuples)."""
    return {k: to_json(v) for k, v in asdict(config).items()}


def to_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
