"""Our networks and those of diffusers and transformers: the same files, the same numbers.

The oracles write the checkpoint themselves, so what is compared went through our loader. Run with
`-s` to see how far apart they are.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion, attention
from stable_diffusion_tf.checkpoint.folder import read_json
from stable_diffusion_tf.checkpoint.names import diffusers_shape, variables
from stable_diffusion_tf.config import from_dict
from stable_diffusion_tf.images import to_uint8
from tests import oracles
from tests.oracles import ANATOMIES, parting

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
PARTS = ("text_encoder", "unet", "encoder", "decoder")


@pytest.fixture(scope="module", params=ANATOMIES)
def case(request, tmp_path_factory) -> SimpleNamespace:
    """An anatomy, the oracles' models, the folder that they wrote, ours that reads it, and what
    the oracles answer to `asked`."""
    anatomy, folder = ANATOMIES[request.param], tmp_path_factory.mktemp(request.param)
    theirs, asked = oracles.oracles(anatomy), oracles.inputs(anatomy)
    oracles.save(theirs, folder)
    oracles.sharpen(theirs)
    return SimpleNamespace(
        anatomy=anatomy,
        folder=folder,
        theirs=theirs,
        ours=StableDiffusion.load(folder),
        asked=asked,
        answers=oracles.answers(theirs, asked),
    )


@pytest.fixture
def agree(record_property, request):
    """A check that two arrays agree, which writes down how well."""

    def check(ours: np.ndarray, theirs: np.ndarray) -> None:
        error = parting(ours, theirs)
        record_property("parting", error)
        print(f"\n{request.node.name}: {error:.1e}")
        assert np.std(theirs) > 0.1  # there is something to compare
        assert error < TOLERANCE

    return check


# --- what is on disk


def test_the_oracles_config_is_read_as_it_was_meant(case):
    for part in ("text_encoder", "unet", "vae"):
        meant = getattr(case.anatomy, part)
        assert from_dict(type(meant), read_json(case.folder / part / "config.json")) == meant


def test_names_and_shapes_are_those_of_the_oracle(case):
    theirs = oracles.names_of(case.theirs)
    ours = {
        part: {k: list(diffusers_shape(v)) for k, v in variables(case.ours.network(part)).items()}
        for part in PARTS
    }
    assert ours["text_encoder"] == theirs["text_encoder"]
    assert ours["unet"] == theirs["unet"]
    assert not set(ours["encoder"]) & set(ours["decoder"])
    assert ours["encoder"] | ours["decoder"] == theirs["vae"]


# --- what comes out


@pytest.mark.parametrize("part", PARTS)
def test_a_network_answers_like_the_oracle(case, part, agree):
    agree(case.ours.function(part)(*case.asked[part]), case.answers[part])


@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_the_unet_at_one_timestep(case, t, agree):
    latent, _, context = case.asked["unet"]
    times = np.full(2, t, np.int32)
    theirs = oracles.noise_of(case.theirs.unet, latent, times, context)
    agree(case.ours.predict_noise(latent, t, context), theirs)


@pytest.mark.parametrize("part", ["unet", "decoder"])
def test_attention_in_chunks_changes_nothing(case, part, agree, monkeypatch):
    """A few queries at a time, as it is done where memory is short."""
    whole = case.ours.function(part)(*case.asked[part])
    cells, heads = np.prod(case.anatomy.cells), case.anatomy.unet.attention_head_dim
    heads = {"unet": heads, "decoder": 1}[part]
    monkeypatch.setattr(attention, "CHUNK_BYTES", 4 * 2 * heads * cells**2 // 10)
    queries = (2, heads, cells, 1)  # the width of a head does not matter
    assert attention.chunk_size(queries, queries) <= cells // 10
    case.ours.functions.pop((part,))  # what was compiled has no chunks
    chunked = case.ours.function(part)(*case.asked[part])
    case.ours.functions.pop((part,))
    agree(chunked, case.answers[part])
    assert parting(chunked, whole) < 1e-5


# --- from a prompt to a picture


@pytest.mark.parametrize("case", ["phantom"], indirect=True)
@pytest.mark.parametrize("size", [(64, 64), (32, 96)], ids=str)
def test_a_whole_run_makes_diffusers_picture(case, size, record_property):
    import torch

    height, width = size
    prompts, negative = ["a cat left of an apple", "two red balloons"], "blurred"
    ids = case.ours.tokenize([*prompts, negative])
    context = torch.from_numpy(oracles.context_of(case.theirs.text_encoder, ids))
    noise = case.ours.draw_noise(3, 2, height, width)
    theirs = oracles.pipeline(case.theirs)(
        prompt_embeds=context[:2],
        negative_prompt_embeds=context[2:].repeat(2, 1, 1),
        latents=oracles.to_torch(noise, case.theirs.unet),
        num_inference_steps=5,
        guidance_scale=7.5,
        height=height,
        width=width,
        output_type="np",
    ).images
    ours = case.ours.generate(
        prompts, negative, steps=5, guidance=7.5, seed=3, height=height, width=width
    )
    apart = np.abs(ours.astype(int) - to_uint8(theirs * 2 - 1).astype(int))
    record_property("apart", int(apart.max()))
    print(f"\n{(apart > 0).mean():.3%} of the values apart, the furthest by {apart.max()} of 255")
    assert ours.std() > 20  # there is something in the picture
    assert (apart <= 1).mean() >= 0.999
