"""Latent consistency models: timesteps, steps and network against what diffusers made of them."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion, Step, UsageError
from stable_diffusion_tf.lcm import guidance_embedding, lcm_step, lcm_timesteps
from stable_diffusion_tf.scheduler import add_noise, alphas_cumprod
from tests import oracles
from tests.golden.make_relatives import GOLDEN, RUN, lcm_inputs, run_context
from tests.golden.make_scheduler import fake_eps
from tests.oracles import LCM, parting

ALPHAS = alphas_cumprod()


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as found:
        return dict(found)


@pytest.fixture(scope="module")
def sd(golden, tmp_path_factory) -> StableDiffusion:
    folder = tmp_path_factory.mktemp("lcm")
    oracles.write(folder, LCM, json.loads(str(golden["lcm/names"])))
    return StableDiffusion.load(folder)


# --- timesteps


@pytest.mark.parametrize(
    "n, expected",
    [(1, [999]), (2, [999, 499]), (4, [999, 759, 499, 259]), (50, [*range(999, 0, -20)])],
)
def test_timesteps_are_taken_evenly_from_those_of_the_distillation(n, expected):
    assert lcm_timesteps(n).tolist() == expected


@pytest.mark.parametrize("n", [0, -1, 51, 1000])
def test_no_more_timesteps_than_were_learned(n):
    with pytest.raises(UsageError, match=re.escape(f"from 1 to 50 steps, not {n}")):
        lcm_timesteps(n)


# --- steps


def test_a_whole_run_is_diffusers(golden):
    run = {k.removeprefix("run/"): v for k, v in golden.items() if k.startswith("run/")}
    times = lcm_timesteps(4)
    np.testing.assert_array_equal(times, run["timesteps"])
    x = run["start"]
    for i, (t, t_prev) in enumerate(zip(times, [*times[1:], -1], strict=True)):
        x, x0 = lcm_step(x, fake_eps(x, int(t)), t, t_prev, ALPHAS, run["noise"][i])
        assert parting(x, run["x_prev"][i]) < 1e-5
        assert parting(x0, run["x0"][i]) < 1e-5


@pytest.mark.parametrize("t", [19, 259, 999])
def test_where_the_noise_is_known_the_clean_latent_comes_back(t):
    clean, eps = np.random.default_rng(t).standard_normal((2, 3, 4, 4, 4))
    x_prev, x0 = lcm_step(add_noise(clean, eps, t, ALPHAS), eps, t, -1, ALPHAS)
    np.testing.assert_array_equal(x_prev, x0)
    np.testing.assert_allclose(x0, clean, atol=1e-4)  # all but the boundary condition's share


def test_at_no_noise_the_consistency_function_is_the_identity():
    x, eps = np.random.default_rng(0).standard_normal((2, 1, 2, 2, 4))
    np.testing.assert_allclose(lcm_step(x, eps, 0, -1, ALPHAS)[1], x, rtol=1e-12)


def test_noise_is_added_as_much_as_the_next_timestep_has():
    x, eps, noise = np.random.default_rng(0).standard_normal((3, 1, 2, 2, 4))
    x_prev, x0 = lcm_step(x, eps, 759, 499, ALPHAS, noise)
    np.testing.assert_allclose(x_prev, add_noise(x0, noise, 499, ALPHAS))
    with pytest.raises(ValueError, match="pass noise="):
        lcm_step(x, eps, 759, 499, ALPHAS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("t", [499, np.int64(499), np.int32(499)], ids=lambda t: type(t).__name__)
def test_a_step_keeps_the_dtype_and_what_it_was_given(dtype, t):
    x, eps, noise = np.random.default_rng(0).standard_normal((3, 1, 2, 2, 4)).astype(dtype)
    before = x.copy(), eps.copy(), noise.copy()
    assert [a.dtype for a in lcm_step(x, eps, t, t - 240, ALPHAS, noise)] == [dtype, dtype]
    assert all((a == b).all() for a, b in zip(before, (x, eps, noise), strict=True))


# --- guidance and the network


def test_the_guidance_embedding_is_diffusers(golden):
    made = guidance_embedding(RUN["guidance"], 256)
    assert made.shape == (1, 256) and made.dtype == np.float32
    np.testing.assert_allclose(made, golden["lcm/embedding"], atol=1e-4)


def test_no_guidance_is_all_cosine():
    np.testing.assert_array_equal(guidance_embedding(1.0, 8), [[0, 0, 0, 0, 1, 1, 1, 1]])


def test_the_network_answers_like_the_oracle(sd, golden):
    made = sd.function("unet")(*lcm_inputs())
    assert parting(made, golden["lcm/unet"]) < 1e-4
    other = sd.function("unet")(*lcm_inputs(guidance=2.0))
    assert parting(other, golden["lcm/unet"]) > 1e-3  # the guidance is heard


# --- the loop


@pytest.fixture(scope="module")
def steps(sd) -> list[Step]:
    context = run_context()
    return list(sd.denoise(context, np.zeros_like(context), **RUN))


def test_a_run_ends_where_diffusers_ends(steps, golden):
    assert [s.t for s in steps] == [999, 759, 499, 259]
    assert parting(steps[-1].x_prev, golden["lcm/denoise"]) < 1e-4


def test_the_loop_is_a_chain_of_single_predictions(steps):
    for before, after in pairwise(steps):
        assert before.x_prev is after.x
    for s in steps:
        assert s.eps_uncond is s.eps_cond is s.eps
    assert steps[-1].x_prev is steps[-1].x0  # no noise is left


def test_an_lcm_is_told_what_it_predicts_with(sd, steps):
    first = steps[0]
    heard = sd.predict_noise(first.x, first.t, run_context(), RUN["guidance"])
    np.testing.assert_array_equal(heard, first.eps)
    assert parting(sd.predict_noise(first.x, first.t, run_context()), first.eps) > 1e-3


def test_too_many_steps_are_refused_at_the_call(sd):
    with pytest.raises(UsageError, match="try steps=4"):
        sd.denoise(run_context(), run_context(), steps=51)


def test_a_picture_takes_four_steps_and_no_negative_prompt(sd):
    picture = sd.generate("a cat", steps=4, seed=1)
    assert picture.shape == (1, 16, 16, 3) and picture.dtype == np.uint8 and picture.std() > 0
    np.testing.assert_array_equal(sd.generate("a cat", "a dog", steps=4, seed=1), picture)
    assert not np.array_equal(sd.generate("a cat", steps=4, guidance=1.0, seed=1), picture)
