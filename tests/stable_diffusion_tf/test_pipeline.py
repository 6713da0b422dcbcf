"""The pipeline's contract, on the shipped phantom."""

from itertools import pairwise

import numpy as np
import pytest

from phantom.world import render, scenes
from stable_diffusion_tf import StableDiffusion, UsageError, unet
from stable_diffusion_tf.compiled import calls_go_through

STEPS = 3


@pytest.fixture(scope="module")
def contexts(sd):
    return np.split(sd.encode_text(["a cat on a red background", ""]), 2)


@pytest.fixture(scope="module")
def images():
    return np.stack([render(scene) for scene in scenes(5, 4)])


def test_the_loop_is_a_chain_and_guidance_is_linear(sd, contexts):
    steps = list(sd.denoise(*contexts, steps=STEPS, guidance=3.0, seed=1))
    assert [s.index for s in steps] == [0, 1, 2] and [s.t for s in steps] == [667, 334, 1]
    for before, after in pairwise(steps):
        np.testing.assert_array_equal(before.x_prev, after.x)
    for s in steps:
        np.testing.assert_allclose(
            s.eps, s.eps_uncond + 3.0 * (s.eps_cond - s.eps_uncond), atol=1e-5
        )
        assert not np.array_equal(s.eps_cond, s.eps_uncond)


def test_guidance_of_one_is_the_prompt_alone(sd, contexts):
    step = next(iter(sd.denoise(*contexts, steps=STEPS, guidance=1.0)))
    np.testing.assert_allclose(step.eps, step.eps_cond, atol=1e-6)


def test_the_same_seed_gives_the_same_picture(sd):
    first, again, other = (
        sd.generate("a cat on a red background", steps=STEPS, seed=s) for s in (4, 4, 5)
    )
    assert first.shape == (1, sd.size, sd.size, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 1


def test_the_first_of_a_batch_is_what_it_would_be_alone(sd):
    alone = sd.generate("a dog", steps=STEPS, seed=4)
    batch = sd.generate(["a dog", "a cat"], steps=STEPS, seed=4)
    assert batch.shape[0] == 2
    assert np.abs(alone[0].astype(int) - batch[0]).max() <= 1


def test_more_latents_than_fit_go_through_the_unet_in_turn(sd, contexts, monkeypatch):
    rng, sizes = np.random.default_rng(0), []
    x = rng.standard_normal((5, 16, 16, 4), dtype=np.float32)
    given = np.array([900, 700, 500, 300, 100]), contexts[0].repeat(5, axis=0)
    whole = sd.predict_noise(x, *given)

    def note(call):
        sizes.append(len(call.arrays[0]))
        return call.compute(*call.arrays)

    monkeypatch.setattr(unet, "AT_ONCE", 2.5 * 256 * unet.unet_bytes(sd.unet_config))
    with calls_go_through(note):
        parts = sd.predict_noise(x, *given)
    assert sizes == [2, 2, 1]
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_eta_adds_noise_that_the_seed_draws(sd, contexts):
    def last(eta, seed):
        return list(sd.denoise(*contexts, steps=STEPS, eta=eta, seed=seed, latent=start))[-1].x_prev

    start = sd.draw_noise(0)
    np.testing.assert_array_equal(last(1.0, 3), last(1.0, 3))
    np.testing.assert_array_equal(last(0.0, 3), last(0.0, 4))
    assert not np.allclose(last(1.0, 3), last(1.0, 4))


def test_a_run_can_start_in_the_middle(sd, contexts):
    whole = list(sd.denoise(*contexts, steps=STEPS, seed=2))
    rest = list(sd.denoise(*contexts, steps=STEPS, seed=2, latent=whole[1].x, start=1))
    assert [s.index for s in rest] == [1, 2]
    np.testing.assert_array_equal(rest[-1].x_prev, whole[-1].x_prev)


def test_pictures_need_not_be_square(sd):
    assert sd.generate("a cat", steps=1, height=48, width=80).shape == (1, 48, 80, 3)


def test_the_round_trip_gives_the_picture_back(sd, images):
    back = sd.decode_latent(sd.encode_image(images))
    error = np.mean((back - (images / 127.5 - 1)) ** 2)
    assert -10 * np.log10(error / 4) > 20


def test_bytes_and_floats_are_the_same_picture(sd, images):
    floats = images.astype(np.float32) / np.float32(127.5) - 1
    np.testing.assert_array_equal(sd.encode_image(images), sd.encode_image(floats))


def test_a_sample_of_the_posterior_strays_by_its_deviation(sd, images):
    mean, deviation = sd.encode_posterior(images)
    scale = sd.vae_config.scaling_factor
    sample = sd.encode_image(images, rng=np.random.default_rng(0)) / scale
    assert 0.95 < np.std((sample - mean) / deviation) < 1.05
    np.testing.assert_allclose(sd.encode_image(images), mean * scale, rtol=1e-6)


def test_latents_of_the_world_are_as_wide_as_the_noise(sd):
    latents = sd.encode_image(np.stack([render(scene) for scene in scenes(6, 64)]))
    assert 0.9 < latents.std() < 1.1 and abs(latents.mean()) < 0.1


def test_looking_never_changes(sd, contexts, images):
    latent = sd.draw_noise(0)
    handed = [images, latent, *contexts]
    before = [a.copy() for a in handed]
    sd.encode_image(images)
    sd.decode_latent(latent)
    list(sd.denoise(*contexts, steps=1, latent=latent))
    for a, b in zip(handed, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_released_part_comes_back_the_same(sd, images):
    before = sd.encode_image(images)
    sd.release("encoder", "decoder")
    assert "encoder" not in sd.networks
    np.testing.assert_array_equal(sd.encode_image(images), before)


def test_words_never_seen_are_named_with_known_ones(sd):
    unknown = sd.unknown_words("a small zebra left of a rabit on a red background")
    assert unknown == {"zebra": [], "rabit": ["rabbit"]}
    assert sd.unknown_words("") == {}


@pytest.mark.parametrize(
    "options, told",
    [
        ({"steps": 0}, "steps must be"),
        ({"steps": -5}, "steps must be"),
        ({"steps": 1001}, "steps must be"),
        ({"guidance": float("nan")}, "guidance"),
        ({"eta": 1.5}, "eta"),
        ({"start": 3}, "start 3"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_at_the_call(sd, contexts, options, told):
    with pytest.raises(UsageError, match=told):
        sd.denoise(*contexts, **{"steps": STEPS, **options})


@pytest.mark.parametrize("prompt", [None, 7, [None], b"a cat"])
def test_what_is_no_prompt_is_refused(sd, prompt):
    with pytest.raises(UsageError, match="must be a str"):
        sd.generate(prompt)


@pytest.mark.parametrize("side, near", [(66, 64), (0, 8), (-64, 8), (1, 8)])
def test_a_wrong_size_is_told_the_nearest_right_one(sd, side, near):
    with pytest.raises(UsageError, match=f"multiple of 8; try {near}"):
        sd.draw_noise(0, height=side)


@pytest.mark.parametrize(
    "images, told",
    [
        (np.zeros((64, 64, 3), np.uint8), r"\(b, H, W, 3\)"),
        (np.zeros((1, 64, 64, 4), np.uint8), r"\(b, H, W, 3\)"),
        (np.zeros((1, 64, 62, 3), np.uint8), "multiples of 4"),
        (np.full((1, 64, 64, 3), 3.0), r"in \[-1, 1\]"),
        (np.full((1, 64, 64, 3), np.nan), r"in \[-1, 1\]"),
        (np.zeros((1, 64, 64, 3), int), r"in \[-1, 1\]"),
    ],
)
def test_what_is_no_picture_is_refused(sd, images, told):
    with pytest.raises(UsageError, match=told):
        sd.encode_image(images)


def test_a_missing_checkpoint_names_those_that_are_there(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere.*phantom"):
        StableDiffusion.load("nowhere")
    (tmp_path / "unet").mkdir()
    with pytest.raises(UsageError, match="holds no checkpoint"):
        StableDiffusion.load(tmp_path)
