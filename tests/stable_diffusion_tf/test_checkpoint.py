"""Weights to disk and back: nothing lost, nothing taken that does not fit."""

import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint import write as write_module
from stable_diffusion_tf.checkpoint.folder import (
    EXTRAS,
    FILES,
    open_part,
    read_json,
)
from stable_diffusion_tf.checkpoint.names import (
    address,
    diffusers_shape,
    to_diffusers,
    to_keras,
    variables,
)
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.write import write_json, write_part
from stable_diffusion_tf.clip import CLIPText, build_clip
from stable_diffusion_tf.config import CLIPTextConfig, UNetConfig, VAEConfig, from_dict, to_dict
from stable_diffusion_tf.unet import build_unet
from stable_diffusion_tf.vae import build_decoder, build_encoder

patient = settings(deadline=None, max_examples=50)  # a busy machine is no failure

TEXT = CLIPTextConfig(
    vocab_size=20,
    hidden_size=8,
    intermediate_size=12,
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


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> SimpleNamespace:
    """A whole checkpoint in float32, and the networks that are in it."""
    networks = {
        part: scramble(build(config), seed)
        for seed, (part, (_, config, build)) in enumerate(PARTS.items())
    }
    folder = tmp_path_factory.mktemp("saved")
    write_part(folder, "text_encoder", TEXT, [networks["text_encoder"]], "float32")
    write_part(folder, "unet", UNET, [networks["unet"]], "float32")
    both = [networks["encoder"], networks["decoder"]]
    write_part(folder, "vae", VAE, both, "float32", _class_name="AutoencoderKL")
    return SimpleNamespace(folder=folder, networks=networks)


@pytest.fixture
def bent(saved, tmp_path):
    """Makes a text encoder's folder out of the saved one by way of a function on its tensors."""

    def make(change, part: str = "text_encoder") -> Path:
        tensors = load_file(saved.folder / part / FILES[part])
        (tmp_path / part).mkdir()
        save_file(change(tensors), tmp_path / part / FILES[part])
        return tmp_path

    return make


# --- there and back


@pytest.mark.parametrize("part", PARTS)
def test_what_is_written_is_what_is_read(saved, part):
    place, config, build = PARTS[part]
    assert from_dict(type(config), read_json(saved.folder / place / "config.json")) == config
    network = scramble(build(config), seed=9)
    load(network, open_part(saved.folder, place), EXTRAS[part])
    assert same(values(network), values(saved.networks[part]))


def test_the_file_is_as_diffusers_has_it(saved):
    """Kernels (out, in, h, w) and (out, in); both halves of the vae in one file."""
    vae, unet = (load_file(saved.folder / part / FILES[part]) for part in ("vae", "unet"))
    assert vae["encoder.conv_in.weight"].shape == (4, 3, 3, 3)
    assert vae["decoder.up_blocks.0.resnets.0.conv1.weight"].shape == (8, 8, 3, 3)
    assert vae["decoder.mid_block.attentions.0.to_out.0.bias"].shape == (8,)
    assert unet["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape == (
        8,
        12,
    )
    kernel = keras.ops.convert_to_numpy(saved.networks["encoder"].encoder.conv_in.kernel)
    np.testing.assert_array_equal(vae["encoder.conv_in.weight"][1, 2], kernel[:, :, 2, 1])
    assert {str(tensor.dtype) for tensor in vae.values()} == {"float32"}
    assert read_json(saved.folder / "vae" / "config.json")["_class_name"] == "AutoencoderKL"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_as_it_was_rounded(saved, bent, dtype):
    folder = bent(lambda tensors: {k: v.astype(dtype) for k, v in tensors.items()})
    network = build_clip(TEXT)
    load(network, open_part(folder, "text_encoder"))
    exact = values(saved.networks["text_encoder"])
    rounded = {k: v.astype(dtype).astype(np.float32) for k, v in exact.items()}
    assert same(values(network), rounded) and not same(values(network), exact)


def test_a_network_inside_another_model_is_written_by_its_own_names(tmp_path):
    """As in training, where one model holds the text encoder and the UNet."""

    class Whole(keras.Model):
        def __init__(self):
            super().__init__(name="whole")
            self.text_encoder = CLIPText(TEXT)

        def call(self, ids):
            return self.text_encoder(ids)

    whole = Whole()
    whole(keras.KerasTensor((None, 6), dtype="int32"))
    write_part(tmp_path, "text_encoder", TEXT, [whole.text_encoder], "float32")
    alone = build_clip(TEXT)
    load(alone, open_part(tmp_path, "text_encoder"))
    assert same(values(alone), values(whole.text_encoder))


def test_a_write_that_fails_leaves_the_old_file(saved, tmp_path, monkeypatch):
    network = saved.networks["text_encoder"]
    write_part(tmp_path, "text_encoder", TEXT, [network], "float32")
    place = tmp_path / "text_encoder" / FILES["text_encoder"]
    before = place.read_bytes()

    def half(tensors, path, metadata):
        Path(path).write_bytes(before[: len(before) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(write_module, "save_file", half)
    with pytest.raises(OSError, match="no space left"):
        write_part(tmp_path, "text_encoder", TEXT, [network], "float16")
    assert place.read_bytes() == before


# --- what does not fit


def wrong(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One tensor missing, one too many, one of another shape, one with its axes swapped."""
    tensors = dict(tensors)
    del tensors["text_model.final_layer_norm.bias"]
    tensors["text_projection.weight"] = np.zeros((8, 8), np.float32)
    tensors["text_model.embeddings.position_embedding.weight"] = np.zeros((77, 8), np.float32)
    fc1 = "text_model.encoder.layers.0.mlp.fc1.weight"
    tensors[fc1] = np.ascontiguousarray(tensors[fc1].T)
    return tensors


def test_all_that_does_not_fit_is_named_at_once(bent):
    folder, network = bent(wrong), scramble(build_clip(TEXT), seed=5)
    before = values(network)
    with pytest.raises(UsageError) as error:
        load(network, open_part(folder, "text_encoder"), EXTRAS["text_encoder"])
    told = str(error.value)
    assert str(folder / "text_encoder" / FILES["text_encoder"]) in told
    assert "1 missing: text_model.final_layer_norm.bias" in told
    assert "1 unexpected: text_projection.weight" in told
    assert "2 misshapen: " in told
    assert "text_model.embeddings.position_embedding.weight (77, 8), not (6, 8)" in told
    assert "text_model.encoder.layers.0.mlp.fc1.weight (8, 12), not (12, 8)" in told
    assert same(values(network), before)


def test_many_names_are_counted(bent):
    folder = bent(lambda tensors: {"stranger": np.zeros(3, np.float32)})
    network = build_clip(TEXT)
    count = len(network.weights)
    with pytest.raises(
        UsageError, match=rf"{count} missing: .* and {count - 5} more; 1 unexpected"
    ):
        load(network, open_part(folder, "text_encoder"))


def test_only_what_is_to_be_ignored_is_ignored(bent):
    ids = {"text_model.embeddings.position_ids": np.arange(6)[None]}
    folder = bent(lambda tensors: tensors | ids)
    load(build_clip(TEXT), open_part(folder, "text_encoder"), EXTRAS["text_encoder"])
    with pytest.raises(UsageError, match=r"1 unexpected: text_model\.embeddings\.position_ids"):
        load(build_clip(TEXT), open_part(folder, "text_encoder"))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_one_half_of_the_vae_still_misses_what_is_its_own(bent, part):
    """The other half may be there; nothing of this half may be gone."""
    place, config, build = PARTS[part]
    gone = f"{part}.conv_norm_out.weight"
    folder = bent(lambda tensors: {k: v for k, v in tensors.items() if k != gone}, place)
    with pytest.raises(UsageError, match=f"1 missing: {re.escape(gone)}$"):
        load(build(config), open_part(folder, place), EXTRAS[part])


# --- files that are damaged

HTML = b"<!DOCTYPE html><html><head><title>404</title></head></html>\n" * 20
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:19da7aaa\nsize 3438167540\n"


def refusal(content: bytes | None) -> str:
    """What is said of a weights file with that content; None: there is no file."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "unet" / FILES["unet"]
        place.parent.mkdir()
        if content is not None:
            place.write_bytes(content)
        with pytest.raises(UsageError) as error:
            open_part(Path(folder), "unet")
        assert str(place) in str(error.value)
        return str(error.value)


@pytest.mark.parametrize("content", [b"", HTML, POINTER], ids=["empty", "html", "git-lfs pointer"])
def test_what_is_no_weights_file_is_named(content):
    assert "no whole safetensors file" in refusal(content)


def test_a_weights_file_that_is_not_there_is_named():
    assert "no weights at" in refusal(None)


@patient
@given(st.data())
def test_a_download_that_broke_off_is_named_wherever_it_did(saved, data):
    whole = (saved.folder / "unet" / FILES["unet"]).read_bytes()
    kept = data.draw(st.integers(0, len(whole) - 1))
    assert "no whole safetensors file" in refusal(whole[:kept])


@pytest.mark.parametrize("content", [b"{", b"", HTML, b"\xff\xfe{}", b"[1, 2]", b'"unet"'])
def test_a_config_that_is_none_is_named(tmp_path, content):
    place = tmp_path / "config.json"
    place.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(str(place))):
        read_json(place)


def test_a_config_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=rf"no config\.json in {re.escape(str(tmp_path))}"):
        read_json(tmp_path / "config.json")


# --- names


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


OLDER = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def in_older_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The vae as SD 1.x was published."""
    for here, older in OLDER.items():
        tensors = {k.replace(here, older): v for k, v in tensors.items()}
    return tensors


def without_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The text encoder as transformers 5 writes it."""
    return {k.removeprefix("text_model."): v for k, v in tensors.items()}


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("encoder", in_older_names),
        ("decoder", in_older_names),
        ("text_encoder", without_prefix),
    ],
)
def test_other_versions_of_the_names_are_known(saved, bent, part, change):
    place, config, build = PARTS[part]
    folder = bent(change, place)
    network = build(config)
    assert not set(load_file(folder / place / FILES[place])) >= set(variables(network))
    load(network, open_part(folder, place), EXTRAS[part])
    assert same(values(network), values(saved.networks[part]))


# --- configs


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
