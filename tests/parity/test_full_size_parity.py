"""Stable Diffusion 1.x at its full size, 512×512, against diffusers and transformers.

The oracles write 4.3 GB and answer; then they go, and ours answer. Takes about 10 GB of memory and
some minutes.
"""

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.config import CLIPTextConfig, UNetConfig, VAEConfig
from stable_diffusion_tf.images import to_uint8
from tests import oracles
from tests.oracles import Anatomy, parting

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
SD1 = Anatomy(CLIPTextConfig(), UNetConfig(), VAEConfig(), (64, 64))
PROMPT, STEPS, SEED = "a photograph of an astronaut riding a horse", 5, 3


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> SimpleNamespace:
    """Ours, and what the oracles answered: to one input each, and a whole run's picture."""
    import torch

    folder = tmp_path_factory.mktemp("sd1")
    torch.manual_seed(0)
    theirs = oracles.as_torch_draws_them(SD1)
    asked = {part: tuple(a[:1] for a in arrays) for part, arrays in oracles.inputs(SD1).items()}
    with torch.no_grad():  # weights as torch draws them make a gray picture
        louder = 0.5 / oracles.images_of(theirs.vae, *asked["decoder"]).std()
        theirs.vae.decoder.conv_out.weight *= louder
    oracles.save(theirs, folder)
    ours = StableDiffusion.load(folder)
    picture, answers = picture_of(theirs, ours), oracles.answers(theirs, asked)
    del theirs
    gc.collect()
    return SimpleNamespace(ours=ours, asked=asked, answers=answers, picture=picture)


def picture_of(theirs: SimpleNamespace, ours: StableDiffusion) -> np.ndarray:
    """StableDiffusionPipeline with DDIM, from our tokens and our noise, (1, 512, 512, 3) uint8."""
    import torch

    context = torch.from_numpy(oracles.context_of(theirs.text_encoder, ours.tokenize([PROMPT, ""])))
    images = oracles.pipeline(theirs)(
        prompt_embeds=context[:1],
        negative_prompt_embeds=context[1:],
        latents=oracles.to_torch(ours.draw_noise(SEED), theirs.unet),
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        output_type="np",
    ).images
    return to_uint8(images * 2 - 1)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "encoder", "decoder"])
def test_a_network_answers_like_the_oracle(case, part, record_property):
    error = parting(case.ours.function(part)(*case.asked[part]), case.answers[part])
    case.ours.release(part)
    record_property("parting", error)
    print(f"\n{part}: {error:.1e}")
    assert np.std(case.answers[part]) > 0.01  # there is something to compare
    assert error < TOLERANCE


def test_a_whole_run_makes_diffusers_picture(case, record_property):
    ours = case.ours.generate(PROMPT, steps=STEPS, guidance=7.5, seed=SEED)
    apart = np.abs(ours.astype(int) - case.picture.astype(int))
    record_property("apart", int(apart.max()))
    print(f"\n{(apart > 0).mean():.3%} of the values apart, the furthest by {apart.max()} of 255")
    assert case.picture.std() > 20  # there is something in the picture
    assert (apart <= 1).mean() >= 0.999
