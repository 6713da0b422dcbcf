"""The relatives of Stable Diffusion 1.x, ours and diffusers': LCM, TAESD, textual inversion."""

import json
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.checkpoint.names import diffusers_shape, variables
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.taesd import open_taesd
from stable_diffusion_tf.compiled import compiled
from stable_diffusion_tf.config import TAESDConfig
from stable_diffusion_tf.images import to_uint8
from stable_diffusion_tf.lcm import guidance_embedding, lcm_step, lcm_timesteps
from stable_diffusion_tf.scheduler import alphas_cumprod
from stable_diffusion_tf.taesd import build_taesd_decoder, build_taesd_encoder
from stable_diffusion_tf.tokenizer import read_vocabulary
from tests import oracles
from tests.golden.make_relatives import lcm_inputs, made_up_run, stock_embedding
from tests.golden.make_scheduler import fake_eps
from tests.oracles import LCM, TAESD, parting

pytestmark = pytest.mark.parity

ALPHAS = alphas_cumprod()


# --- LCM


@pytest.fixture(scope="module")
def lcm(tmp_path_factory) -> SimpleNamespace:
    """The oracles' models with a guidance embedding, and ours that read their folder."""
    theirs, folder = oracles.oracles(LCM), tmp_path_factory.mktemp("lcm")
    oracles.save(theirs, folder)
    oracles.sharpen(theirs)
    return SimpleNamespace(theirs=theirs, ours=StableDiffusion.load(folder))


def test_lcm_timesteps_agree():
    scheduler = oracles.lcm()
    for n in range(1, 51):
        scheduler.set_timesteps(n)
        np.testing.assert_array_equal(lcm_timesteps(n), scheduler.timesteps)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_lcm_runs_agree(n):
    run = made_up_run(n, (2, 3, 5, 4))
    x, times = run.start, lcm_timesteps(n)
    for i, (t, t_prev) in enumerate(zip(times, [*times[1:], -1], strict=True)):
        x, x0 = lcm_step(x, fake_eps(x, int(t)), t, t_prev, ALPHAS, run.noise[i])
        assert parting(x, run.x_prev[i]) < 1e-5
        assert parting(x0, run.x0[i]) < 1e-5


@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5, 7.5, 8.0, 20.0])
@pytest.mark.parametrize("width", [24, 256, 512])
def test_guidance_embeddings_agree(guidance, width):
    theirs = stock_embedding(guidance, width)  # float32 frequencies of angles up to 2e4
    np.testing.assert_allclose(guidance_embedding(guidance, width), theirs, atol=1e-3)


def test_names_and_shapes_of_an_lcm_are_those_of_the_oracle(lcm):
    ours = {k: list(diffusers_shape(v)) for k, v in variables(lcm.ours.network("unet")).items()}
    assert ours == oracles.names_of(lcm.theirs)["unet"]
    assert ours["time_embedding.cond_proj.weight"] == [32, 24]


@pytest.mark.parametrize("guidance", [1.0, 8.0])
def test_the_network_of_an_lcm_answers_like_the_oracle(lcm, guidance):
    asked = lcm_inputs(guidance)
    theirs = oracles.guided_noise_of(lcm.theirs.unet, *asked)
    assert parting(lcm.ours.function("unet")(*asked), theirs) < 1e-4


def test_a_whole_run_of_an_lcm_makes_diffusers_picture(lcm):
    prompts, seed = ["a cat left of an apple", "two red balloons"], 3
    context, noise = lcm.ours.encode_text(prompts), lcm.ours.draw_noise(seed, 2)
    with oracles.given_noise(oracles.noise_between_steps(seed, noise.shape, lcm.theirs.unet)):
        theirs = lcm_pipeline(lcm.theirs)(
            prompt_embeds=torch_double(context),
            latents=oracles.to_torch(noise, lcm.theirs.unet),
            num_inference_steps=4,
            guidance_scale=8.0,
            output_type="np",
        ).images
    ours = lcm.ours.generate(prompts, steps=4, guidance=8.0, seed=seed)
    apart = np.abs(ours.astype(int) - to_uint8(theirs * 2 - 1).astype(int))
    assert ours.std() > 20  # there is something in the picture
    assert (apart <= 1).mean() >= 0.999


def lcm_pipeline(models: SimpleNamespace) -> Any:
    """LatentConsistencyModelPipeline. Nothing for it comes from a network."""
    import diffusers

    pipeline = diffusers.LatentConsistencyModelPipeline(
        **vars(models),
        tokenizer=None,
        scheduler=oracles.lcm(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def torch_double(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array).double()


# --- TAESD


@pytest.mark.parametrize("binary", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("config", [TAESD, TAESDConfig()], ids=["small", "published size"])
def test_taesd_agrees(config, binary, tmp_path):
    theirs = oracles.filled(oracles.taesd(config), draw=oracles.draw_loud)
    theirs.save_pretrained(tmp_path, safe_serialization=not binary)
    theirs.double()
    latents = 2 * oracles.random_array(2, 6, 5, 4)
    images = np.tanh(oracles.random_array(2, 6 * config.factor, 5 * config.factor, 3))
    for part, build, asked, answer in (
        ("encoder", build_taesd_encoder, images, oracles.latents_of(theirs, images)),
        ("decoder", build_taesd_decoder, latents, oracles.images_of(theirs, latents)),
    ):
        found, source = open_taesd(tmp_path, part)
        assert found == config
        network = build(found)
        load(network, source)
        assert np.std(answer) > 0.1  # there is something to compare
        assert parting(compiled(network)(asked), answer) < 1e-4


# --- textual inversion


def diffusers_teacher(folder: Path, text_encoder: Any) -> Any:
    """What of a diffusers pipeline learns words: its tokenizer here has OpenAI's vocabulary."""
    import transformers
    from diffusers.loaders import TextualInversionLoaderMixin

    class Teacher(TextualInversionLoaderMixin):
        hf_device_map, components = None, MappingProxyType({})

    vocabulary, teacher = read_vocabulary(), Teacher()
    merges = "\n".join(["#version: 0.2", *map(" ".join, vocabulary.ranks)])
    (folder / "vocab.json").write_text(json.dumps(vocabulary.ids), encoding="utf-8")
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 77}', encoding="utf-8")
    teacher.tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    teacher.text_encoder = text_encoder
    return teacher


PROMPTS = ["a <toy> cat", "<style>, <toy>; <style>!", "in <STYLE> style", "a cat"]


def test_learned_words_agree(tmp_path):
    """The same files, the same prompts: the same ids, the same contexts."""
    import torch

    models, width = oracles.oracles(LCM), LCM.text_encoder.hidden_size
    oracles.save(models, tmp_path)
    ours = StableDiffusion.load(tmp_path)
    theirs = diffusers_teacher(tmp_path, models.text_encoder)
    toy, style = (torch.from_numpy(oracles.random_array(n, width, seed=n)) for n in (1, 3))
    for name, tree in {
        "toy.bin": {"<toy>": toy[0]},
        "<style>.pt": {"string_to_param": {"*": style}, "name": "<style>", "step": 7},
    }.items():
        torch.save(tree, tmp_path / name)
        theirs.load_textual_inversion(str(tmp_path), weight_name=name)
        ours.add_word(tmp_path / name)
    assert [*ours.learned] == ["<toy>", "<style>"]
    prompts = [theirs.maybe_convert_prompt(p.lower(), theirs.tokenizer) for p in PROMPTS]
    ids = theirs.tokenizer(prompts, padding="max_length", truncation=True).input_ids
    np.testing.assert_array_equal(ours.tokenize(PROMPTS), ids)
    context = oracles.context_of(theirs.text_encoder, np.array(ids))
    assert parting(ours.encode_text(PROMPTS), context) < 1e-4
