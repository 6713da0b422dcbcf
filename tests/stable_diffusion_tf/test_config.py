"""Configs: there and back, and what they refuse."""

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion, UsageError
from stable_diffusion_tf.checkpoint.folder import CONFIGS as CONFIG_FILES
from stable_diffusion_tf.checkpoint.folder import read_json
from stable_diffusion_tf.checkpoint.write import SCHEDULER, write_json
from stable_diffusion_tf.config import (
    CLIPTextConfig,
    ScheduleConfig,
    TAESDConfig,
    UNetConfig,
    VAEConfig,
    check_relations,
    from_dict,
    to_dict,
)
from stable_diffusion_tf.scheduler import alphas_cumprod, ddim_step
from tests.tiny import TEXT, UNET, VAE


@pytest.mark.parametrize("config", [TEXT, UNET, VAE], ids=lambda config: type(config).__name__)
def test_a_config_survives_json_and_keys_it_does_not_know(tmp_path, config):
    write_json(tmp_path / "config.json", {"_diffusers_version": "0.6.0", "dropout": 0.1})
    write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | to_dict(config))
    assert from_dict(type(config), read_json(tmp_path / "config.json")) == config


def test_what_a_config_does_not_say_is_as_in_sd1():
    assert from_dict(VAEConfig, {}) == VAEConfig()
    assert from_dict(UNetConfig, json.loads('{"mid_block_type": null}')).mid_block_type is None
    assert from_dict(UNetConfig, {}).mid_block_type == "UNetMidBlock2DCrossAttn"


@pytest.mark.parametrize(
    ("cls", "found"),
    [
        (CLIPTextConfig, {"hidden_act": "gelu"}),  # SD 2.x
        (UNetConfig, {"use_linear_projection": True}),  # SD 2.x
        (UNetConfig, {"freq_shift": 1}),
        (UNetConfig, {"act_fn": "gelu"}),
        (UNetConfig, {"norm_eps": 1e-6}),
        (VAEConfig, {"shift_factor": 0.1}),
    ],
    ids=str,
)
def test_a_setting_that_would_be_overlooked_is_refused(cls, found):
    ((name, value),) = found.items()
    with pytest.raises(UsageError, match=f"{name} {value!r} is not supported"):
        from_dict(cls, found)


# --- values that a damaged, a hostile or a hand-written file may hold

CONFIGS = [CLIPTextConfig, UNetConfig, VAEConfig, TAESDConfig, ScheduleConfig]
FIELDS = [(cls, field.name) for cls in CONFIGS for field in fields(cls)]
WRONG = [None, "64", "", [], {}, [[]], 0, -1, 3.5, True, float("nan"), float("inf"), 10**400, 1e30]
RIGHT = {  # what of the above some field may be all the same
    ("UNetConfig", "sample_size", None),
    ("VAEConfig", "sample_size", None),
    ("UNetConfig", "mid_block_type", None),
    ("UNetConfig", "time_cond_proj_dim", None),
    ("VAEConfig", "scaling_factor", 3.5),
}


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=lambda it: getattr(it, "__name__", it))
def test_a_value_that_no_such_field_can_have_is_named(cls, name):
    for value in [*WRONG, [0, 1], [None, None], deep([], 900), deep({}, 900)]:
        if not isinstance(value, list | dict) and (cls.__name__, name, value) in RIGHT:
            continue
        with pytest.raises(UsageError, match=f"^unet/config.json: .*{name}") as error:
            from_dict(cls, {name: value}, "unet/config.json")
        assert "\n" not in str(error.value) and len(str(error.value)) < 300


def deep(thing: list | dict, depth: int) -> list | dict:
    for _ in range(depth):
        thing = [thing] if isinstance(thing, list) else {"a": thing}
    return thing


@pytest.mark.parametrize(
    ("cls", "found", "name", "meant"),
    [
        (UNetConfig, {"sample_size": [64, 64]}, "sample_size", 64),
        (UNetConfig, {"sample_size": None}, "sample_size", 64),
        (VAEConfig, {"sample_size": None}, "sample_size", 512),
        (UNetConfig, {"layers_per_block": [1, 1, 1, 1]}, "layers_per_block", 1),
        (UNetConfig, {"cross_attention_dim": [768] * 4}, "cross_attention_dim", 768),
        (UNetConfig, {"attention_head_dim": [4] * 4}, "attention_head_dim", 4),
        (VAEConfig, {"scaling_factor": 1}, "scaling_factor", 1),
    ],
)
def test_other_forms_that_diffusers_allows_mean_the_same(cls, found, name, meant):
    assert getattr(from_dict(cls, found), name) == meant


@pytest.mark.parametrize(
    ("cls", "found", "said"),
    [
        (
            VAEConfig,
            {"scaling_factor": None},
            "config.json: scaling_factor is None; it must be a number from 0.001 to 1000, in "
            "Stable Diffusion 1.x it is 0.18215",
        ),
        (UNetConfig, {"sample_size": [64, 96]}, r"sample_size is [64, 96]; it must be a whole"),
        (UNetConfig, {"layers_per_block": [1, 2, 2, 2]}, "layers_per_block is [1, 2, 2, 2];"),
        (UNetConfig, {"norm_num_groups": None}, "norm_num_groups is None; it must be a whole"),
        (UNetConfig, {"norm_num_groups": 33}, "must be a divisor of all block_out_channels"),
        (UNetConfig, {"attention_head_dim": 7}, "must be a divisor of every width with attention"),
        (UNetConfig, {"block_out_channels": [64, 64]}, "must be as long as block_out_channels"),
        (UNetConfig, {"down_block_types": ["AttnDownBlock2D"] * 4}, "each 'CrossAttnDownBlock2D'"),
        (UNetConfig, {"out_channels": 8}, "out_channels is 8; it must be as in_channels"),
        (UNetConfig, {"time_cond_proj_dim": 255}, "it must be even, from 4"),
        (CLIPTextConfig, {"num_attention_heads": 7}, "must be a divisor of hidden_size"),
        (TAESDConfig, {"num_decoder_blocks": [1, 1]}, "must be as long as decoder_block_out_"),
        (TAESDConfig, {"decoder_block_out_channels": [64, 64, 32, 64]}, "the same at all levels"),
        (ScheduleConfig, {"beta_end": 0.0001}, "beta_end is 0.0001; it must be no less than beta"),
        (ScheduleConfig, {"beta_schedule": "squaredcos_cap_v2"}, "'linear' or 'scaled_linear'"),
    ],
    ids=str,
)
def test_the_message_says_what_it_may_be(cls, found, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        check_relations(from_dict(cls, found))


def write_configs(folder: Path, **other: dict) -> Path:
    """The folder, with the configs of a tiny model, some of whose fields are others; no weights."""
    told = {"text_encoder": to_dict(TEXT), "unet": to_dict(UNET), "vae": to_dict(VAE)}
    for part, config in (told | {"scheduler": SCHEDULER}).items():
        write_json(folder / part / CONFIG_FILES[part][0], config | other.get(part, {}))
    return folder


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("vae", "scaling_factor", None),
        ("unet", "layers_per_block", 10**9),
        ("text_encoder", "layer_norm_eps", -1),
        ("unet", "norm_num_groups", 3),
        ("scheduler", "rescale_betas_zero_snr", True),
    ],
)
def test_a_folder_with_such_a_value_is_refused_when_it_is_named(tmp_path, part, field, value):
    place = write_configs(tmp_path, **{part: {field: value}}) / part / CONFIG_FILES[part][0]
    with pytest.raises(UsageError, match=f"{re.escape(str(place))}: .*{field}"):
        StableDiffusion.load(tmp_path)


@pytest.mark.parametrize(
    ("part", "field", "value", "other"),
    [
        ("unet", "cross_attention_dim", 768, "hidden_size of text_encoder/config.json is 12"),
        ("vae", "latent_channels", 8, "in_channels of unet/config.json is 4"),
    ],
)
def test_parts_of_two_models_are_refused(tmp_path, part, field, value, other):
    with pytest.raises(UsageError) as told:
        StableDiffusion.load(write_configs(tmp_path, **{part: {field: value}}))
    assert other in str(told.value) and f"{field} of {part}/config.json is {value}" in str(
        told.value
    )


def test_a_text_encoder_with_too_few_positions_says_so(tmp_path):
    with pytest.raises(UsageError, match="has 6 positions, and a prompt takes 77"):
        StableDiffusion.load(write_configs(tmp_path)).encode_text("a cat")


# --- the schedule

CONTEXT, LATENT = np.zeros((1, 77, 12), np.float32), np.ones((1, 8, 8, 4), np.float32)


@pytest.fixture
def scheduled(tmp_path):
    """A model whose folder tells of another schedule; all noise that it predicts is 0.5."""

    def make(**told) -> StableDiffusion:
        sd = StableDiffusion.load(write_configs(tmp_path, scheduler=told))
        sd.predict_noise = lambda x, t, context, step: np.full_like(x, 0.5)
        return sd

    return make


def test_another_schedule_is_honoured(scheduled):
    assert np.array_equal(scheduled().alphas, alphas_cumprod())
    ho = scheduled(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
    assert ho.alphas[-1] == pytest.approx(4.0358e-5, rel=1e-4)  # of arXiv 2006.11239
    step = next(ho.denoise(CONTEXT, CONTEXT, steps=4, latent=LATENT))
    x, x0 = ddim_step(step.x, step.eps, 751, 501, ho.alphas)
    np.testing.assert_allclose(step.x0, x0, rtol=1e-6)
    np.testing.assert_allclose(step.x_prev, x, rtol=1e-6)


def test_trailing_timesteps_are_taken_where_the_folder_says_so(scheduled):
    assert scheduled().timesteps(4).tolist() == [751, 501, 251, 1]
    sd = scheduled(timestep_spacing="trailing")
    assert sd.timesteps(4).tolist() == [999, 749, 499, 249]
    assert scheduled(timestep_spacing="linspace").timesteps(4).tolist() == [999, 666, 333, 0]
    steps = list(sd.denoise(CONTEXT, CONTEXT, steps=2, latent=LATENT))
    assert [step.t for step in steps] == [999, 499]
    x, _ = ddim_step(LATENT, steps[0].eps, 999, 499, sd.alphas)
    np.testing.assert_array_equal(steps[0].x_prev, x)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rescale_betas_zero_snr", True),
        ("num_train_timesteps", 500),
        ("trained_betas", [0.1, 0.2]),
        ("thresholding", True),
    ],
)
def test_a_schedule_that_is_not_built_here_is_refused(scheduled, name, value):
    with pytest.raises(UsageError, match=rf"scheduler_config\.json: .* {name} .* not supported"):
        scheduled(**{name: value})
