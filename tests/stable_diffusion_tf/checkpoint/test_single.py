"""The single file: diffusers' names, shapes and configs out of CompVis', and no other model.

Names as diffusers' own converter has them: tests/golden/make_compvis.py.
"""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.open import open_checkpoint
from stable_diffusion_tf.checkpoint.single import SingleFile
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.config import UNetConfig, from_dict, to_dict
from stable_diffusion_tf.unet import build_unet
from tests.formats import write_stream, write_zip
from tests.golden.make_compvis import GOLDEN
from tests.oracles import ANATOMIES, draw
from tests.tiny import values

PARTS = ("text_encoder", "unet", "vae")
TEXT, UNET, VAE = "cond_stage_model.transformer.", "model.diffusion_model.", "first_stage_model."
CONV_IN = f"{UNET}input_blocks.0.0.weight"
TO_K = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file(tensors, path)
    return path


WRITERS = {
    "safetensors": write_safetensors,
    "ckpt": lambda path, tensors: write_zip(path, {"epoch": 1, "state_dict": tensors}),
    "old ckpt": lambda path, tensors: write_stream(path, {"state_dict": tensors}),
}


@pytest.fixture(scope="module")
def models() -> dict[str, SimpleNamespace]:
    """Anatomy → its drawn tensors by part and diffusers name, and flat as CompVis has them."""
    golden, found = json.loads(gzip.decompress(GOLDEN.read_bytes())), {}
    for anatomy, parts in golden.items():
        drawn = {p: {k: draw(k, v[0]) for k, v in names.items()} for p, names in parts.items()}
        flat = {
            there: drawn[part][name].reshape(shape)
            for part, names in parts.items()
            for name, (_, there, shape) in names.items()
        }
        found[anatomy] = SimpleNamespace(parts=drawn, flat=flat)
    return found


@pytest.fixture
def sd1(models) -> dict[str, np.ndarray]:
    """The flat tensors of the small SD 1.x."""
    return dict(models["sd1"].flat)


def refusal(path: Path, **choice) -> str:
    with pytest.raises(UsageError) as error:
        SingleFile(path, **choice)
    told = str(error.value)
    assert told.startswith(str(path)) and "\n" not in told
    return told


# --- what is read


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("anatomy", ["sd1", "bk-sdm-tiny"])
def test_tensors_go_by_diffusers_names(models, tmp_path, anatomy, form):
    model = models[anatomy]
    file = open_checkpoint(WRITERS[form](tmp_path / "model", model.flat))
    assert isinstance(file, SingleFile) and file.place == tmp_path / "model"
    for part in PARTS:
        source, expected = file.source(part), model.parts[part]
        assert source.shapes() == {name: tensor.shape for name, tensor in expected.items()}
        for name, tensor in expected.items():
            np.testing.assert_array_equal(source.get(name), tensor, err_msg=name)


@pytest.mark.parametrize("anatomy", ["sd1", "bk-sdm-tiny"])
def test_configs_follow_from_names_and_shapes(models, tmp_path, anatomy):
    """All but what leaves no trace, which is as in SD 1.x."""
    meant = ANATOMIES[anatomy]
    file = SingleFile(write_safetensors(tmp_path / "model", models[anatomy].flat))
    text, unet, vae = map(file.config, PARTS)
    untold = {"sample_size": 64, "norm_num_groups": 32, "attention_head_dim": 8}
    assert unet == to_dict(replace(meant.unet, **untold))
    assert vae == to_dict(replace(meant.vae, norm_num_groups=32))
    assert text == to_dict(replace(meant.text_encoder, num_attention_heads=1))
    assert file.config("scheduler") == {}


def test_channels_follow_from_the_outermost_layers(sd1, tmp_path):
    outermost = {
        CONV_IN: (32, 6, 3, 3),
        f"{UNET}out.2.weight": (12, 32, 3, 3),
        f"{VAE}encoder.conv_in.weight": (16, 1, 3, 3),
        f"{VAE}decoder.conv_in.weight": (48, 6, 3, 3),
        f"{VAE}decoder.conv_out.weight": (2, 16, 3, 3),
    }
    changed = {name: np.zeros(shape, np.float32) for name, shape in outermost.items()}
    file = SingleFile(write_safetensors(tmp_path / "model", sd1 | changed))
    unet, vae = file.config("unet"), file.config("vae")
    assert (unet["in_channels"], unet["out_channels"]) == (6, 12)
    assert (vae["in_channels"], vae["latent_channels"], vae["out_channels"]) == (1, 6, 2)


def test_the_text_encoder_of_sd1_has_12_heads(sd1, tmp_path):
    for name, tensor in sd1.items():
        if name.startswith(TEXT):
            sd1[name] = np.zeros([768 if n == 48 else n for n in tensor.shape], np.float16)
    file = SingleFile(write_safetensors(tmp_path / "model", sd1))
    assert file.config("text_encoder")["num_attention_heads"] == 12


def test_a_network_takes_all_of_it(models, tmp_path):
    model = models["bk-sdm-tiny"]
    file = SingleFile(write_safetensors(tmp_path / "model", model.flat))
    network = build_unet(from_dict(UNetConfig, file.config("unet")))
    load(network, file.source("unet"))
    kernel = model.parts["unet"]["conv_in.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(values(network)["conv_in.weight"], kernel)


def test_a_text_encoder_of_an_older_transformers_is_read(sd1, tmp_path, models):
    older = {k.replace(f"{TEXT}text_model.", TEXT): v for k, v in sd1.items()}
    assert older.keys() != sd1.keys()
    source = SingleFile(write_safetensors(tmp_path / "model", older)).source("text_encoder")
    assert source.shapes().keys() == models["sd1"].parts["text_encoder"].keys()


def test_integers_stay_integers(sd1, tmp_path):
    ids = {f"{TEXT}text_model.embeddings.position_ids": np.arange(77)[None]}
    source = SingleFile(write_safetensors(tmp_path / "model", sd1 | ids)).source("text_encoder")
    found = source.get("text_model.embeddings.position_ids")
    assert found.dtype == np.int64 and found.tolist() == [list(range(77))]


LEFT = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod"),
    *("sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod"),
    *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance"),
    *("posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    *("logvar", "lvlb_weights", "scale_factor", "model_ema.decay", "model_ema.num_updates"),
    *(f"{VAE}loss.logvar", f"{VAE}loss.discriminator.main.0.weight", f"{VAE}model_ema.decay"),
)


def test_what_training_left_behind_is_let_go(sd1, models, tmp_path):
    left = {name: np.zeros(3, np.float32) for name in LEFT}
    file = SingleFile(write_safetensors(tmp_path / "model", sd1 | left))
    for part in PARTS:
        assert file.source(part).shapes().keys() == models["sd1"].parts[part].keys()


# --- the running mean


@pytest.fixture
def averaged(sd1, tmp_path) -> Path:
    """A file from training: the mean of each of the UNet's tensors is the tensor plus one."""
    mean = {
        "model_ema." + name[len("model.") :].replace(".", ""): tensor + 1
        for name, tensor in sd1.items()
        if name.startswith(UNET)
    }
    assert "model_ema.diffusion_modelinput_blocks00weight" in mean
    counts = {"model_ema.decay": np.float32([0.9999]), "model_ema.num_updates": np.int32([470000])}
    return write_safetensors(tmp_path / "full.safetensors", sd1 | mean | counts)


@pytest.mark.parametrize(
    ("choice", "added"), [({}, 0), ({"weights": "plain"}, 0), ({"weights": "ema"}, 1)]
)
def test_the_running_mean_is_taken_where_it_is_asked_for(averaged, models, choice, added):
    file = SingleFile(averaged, **choice)
    for part in PARTS:
        source, expected = file.source(part), models["sd1"].parts[part]
        assert source.shapes() == {name: tensor.shape for name, tensor in expected.items()}
        for name, tensor in expected.items():
            plus = added if part == "unet" else 0
            np.testing.assert_array_equal(source.get(name), tensor + np.float32(plus))


def test_a_running_mean_that_is_not_there_is_named(sd1, tmp_path):
    told = refusal(write_safetensors(tmp_path / "model", sd1), weights="ema")
    assert "has no averaged UNet (model_ema.diffusion_model" in told


# --- other models


def tensors(*names: str, shape: tuple[int, ...] = (2,)) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name in names}


BLOCK = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
OTHERS = {
    "Stable Diffusion XL": tensors("conditioner.embedders.0.transformer.text_model.x", CONV_IN),
    "Stable Diffusion 2": tensors("cond_stage_model.model.token_embedding.weight", CONV_IN),
    "Stable Diffusion 2; ": tensors(TO_K, shape=(320, 1024)),
    "Stable Diffusion 3": tensors(f"{UNET}joint_blocks.0.x_block.attn.qkv.weight"),
    "FLUX": tensors("double_blocks.0.img_attn.qkv.weight"),
    "a LoRA": tensors(f"lora_unet_{BLOCK}.lora_down.weight", f"lora_unet_{BLOCK}.alpha"),
    "a LoRA, ": tensors("unet.down_blocks.0.attentions.0.attn1.to_q.lora_A.weight"),
    "a LoRA, which": tensors("unet.mid_block.attentions.0.attn1.processor.to_q_lora.up.weight"),
    "a LoRA, which changes": tensors("<s1>", "unet:0:up", "unet:0:down", "text_encoder:0:up"),
    "a ControlNet": tensors("control_model.time_embed.0.weight"),
    "AnimateDiff": tensors("down_blocks.0.motion_modules.0.norm.weight"),
    "an inpainting model": tensors(CONV_IN, shape=(320, 9, 3, 3)),
    "InstructPix2Pix or another model of 8 channels": tensors(CONV_IN, shape=(320, 8, 3, 3)),
    "a UNet alone": tensors("down_blocks.0.resnets.0.conv1.weight"),
    "a VAE alone": tensors("encoder.conv_in.weight", "decoder.conv_in.weight", "loss.logvar"),
    "a VAE alone;": tensors("decoder.mid.block_1.conv1.weight"),
    "a text encoder alone": tensors("text_model.encoder.layers.0.mlp.fc1.weight"),
    "a textual-inversion embedding": tensors("<cat>", shape=(768,)),
    "a textual-inversion embedding; ": tensors("*", shape=(2, 768)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_model_is_called_by_its_name(tmp_path, name):
    told = refusal(write_safetensors(tmp_path / "model", OTHERS[name]))
    assert f" is {name}" in told and "only whole models of Stable Diffusion 1.x" in told


@pytest.mark.parametrize(("part", "title"), [(TEXT, "text encoder"), (UNET, "UNet"), (VAE, "VAE")])
def test_a_part_that_is_missing_is_named(sd1, tmp_path, part, title):
    rest = {name: tensor for name, tensor in sd1.items() if not name.startswith(part)}
    assert f"has no {title}, which would begin with {part}" in refusal(
        write_safetensors(tmp_path / "model", rest)
    )


def test_tensors_of_no_known_part_are_named(sd1, tmp_path):
    told = refusal(write_safetensors(tmp_path / "model", sd1 | tensors("stranger", "alien.weight")))
    assert "has tensors of no known part (alien.weight, stranger)" in told


def test_two_spellings_of_one_tensor_are_refused(sd1, tmp_path):
    twice = {f"{UNET}conv_in.weight": sd1[CONV_IN]}
    told = refusal(write_safetensors(tmp_path / "model", sd1 | twice))
    assert re.search("holds conv_in.weight twice, as .* and as", told)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        (f"{UNET}out.2.weight", "UNet"),
        (f"{VAE}encoder.conv_in.weight", "VAE"),
        (f"{TEXT}text_model.embeddings.token_embedding.weight", "text encoder"),
    ],
)
@pytest.mark.parametrize(
    "bent",
    [lambda flat, name: flat.pop(name), lambda flat, name: flat.update(tensors(name, shape=()))],
    ids=["missing", "misshapen"],
)
def test_a_network_that_cannot_be_told_is_named(sd1, tmp_path, name, title, bent):
    bent(sd1, name)
    told = refusal(write_safetensors(tmp_path / "model", sd1))
    assert f"does not tell how its {title} is built" in told
