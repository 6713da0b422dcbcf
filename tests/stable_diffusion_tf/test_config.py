"""Configs: there and back, and what they refuse."""

import json

import pytest

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.folder import read_json
from stable_diffusion_tf.checkpoint.write import write_json
from stable_diffusion_tf.config import CLIPTextConfig, UNetConfig, VAEConfig, from_dict, to_dict
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
