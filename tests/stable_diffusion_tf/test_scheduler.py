"""The scheduler against the papers' identities and against values written by diffusers."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.scheduler import (
    add_noise,
    alphas_cumprod,
    ddim_step,
    ddpm_step,
    predict_eps,
    predict_x0,
    previous,
    snr,
    timesteps,
    trailing_timesteps,
    velocity_to_eps,
    velocity_to_x0,
)

GOLDEN = Path(__file__).parents[1] / "golden"
ALPHAS = alphas_cumprod()

patient = settings(deadline=None, max_examples=50)  # a busy machine is no failure
latents = arrays(np.float64, (2, 3, 2, 4), elements=st.floats(-4, 4))
times = st.integers(0, 999)
times_down = st.tuples(times, times).map(lambda pair: (max(pair), min(pair)))
floats = st.sampled_from([np.float16, np.float32, np.float64])


def frozen(array: np.ndarray) -> np.ndarray:
    """A copy that refuses to be written to."""
    array = array.copy()
    array.flags.writeable = False
    return array


def calls(x: np.ndarray, other: np.ndarray, noise: np.ndarray) -> dict:
    """Each function that takes arrays, ready to be called at t = 501."""
    return {
        "add_noise": lambda: add_noise(x, other, 501, ALPHAS),
        "predict_x0": lambda: predict_x0(x, other, 501, ALPHAS),
        "predict_eps": lambda: predict_eps(x, other, 501, ALPHAS),
        "velocity_to_x0": lambda: velocity_to_x0(x, other, 501, ALPHAS),
        "velocity_to_eps": lambda: velocity_to_eps(x, other, 501, ALPHAS),
        "add_noise, a t each": lambda: add_noise(x, other, np.array([501, 0]), ALPHAS),
        "ddim, x_prev": lambda: ddim_step(x, other, 501, 481, ALPHAS)[0],
        "ddim, x0": lambda: ddim_step(x, other, 501, 481, ALPHAS)[1],
        "ddim, eta": lambda: ddim_step(x, other, 501, 481, ALPHAS, 0.5, noise)[0],
        "ddpm, x_prev": lambda: ddpm_step(x, other, 501, 481, ALPHAS, noise)[0],
        "ddpm, x0": lambda: ddpm_step(x, other, 501, 481, ALPHAS, noise)[1],
    }


CALLS = list(calls(*np.zeros((3, 2, 1, 1, 1))))


# --- the table and the timesteps


def test_alphas_follow_the_scaled_linear_schedule():
    assert ALPHAS.shape == (1000,) and ALPHAS.dtype == np.float64
    betas = 1 - ALPHAS / np.concatenate([[1.0], ALPHAS[:-1]])
    roots = np.sqrt(betas)
    np.testing.assert_allclose(betas[[0, -1]], [0.00085, 0.012], rtol=1e-9)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0], rtol=1e-6)


def test_alphas_follow_the_linear_schedule():
    alphas = alphas_cumprod(0.0001, 0.02, schedule="linear")
    betas = 1 - alphas / np.concatenate([[1.0], alphas[:-1]])
    np.testing.assert_allclose(betas, np.linspace(0.0001, 0.02, 1000), rtol=1e-9)


@patient
@given(st.integers(1, 1000))
def test_trailing_timesteps_begin_at_the_last_and_are_as_many_as_asked(n):
    found = trailing_timesteps(n)
    assert found.shape == (n,) and found[0] == 999 and found[-1] >= 0
    assert n == 1 or np.ptp(np.diff(found)) <= 1
    assert trailing_timesteps(50).tolist() == list(range(999, 0, -20))


def test_timesteps_of_50():
    assert timesteps(50)[:3].tolist() == [981, 961, 941]
    assert timesteps(50)[-2:].tolist() == [21, 1]
    assert timesteps(50).dtype == np.int64


def test_a_thousand_timesteps_drop_the_offset():
    assert timesteps(1000)[[0, -1]].tolist() == [999, 0]
    assert timesteps(999)[[0, -1]].tolist() == [999, 1]
    assert timesteps(10, train_steps=10)[[0, -1]].tolist() == [9, 0]
    assert timesteps(50, offset=0)[[0, -1]].tolist() == [980, 0]


@pytest.mark.parametrize("train_steps", [1, 2, 100, 1000])
def test_there_are_always_exactly_n_timesteps_evenly_spaced(train_steps):
    for n in range(1, train_steps + 1):
        ts = timesteps(n, train_steps)
        assert len(ts) == n
        assert ts[-1] >= 0 and ts[0] < train_steps
        assert np.all(np.diff(ts) == -(train_steps // n))


@pytest.mark.parametrize("n", [0, -1, 1001])
def test_an_impossible_number_of_steps_says_what_to_type(n):
    with pytest.raises(ValueError, match=f"from 1 to 1000, not {n}: try steps=25"):
        timesteps(n)


def test_half_a_step_is_no_number_of_steps():
    with pytest.raises(UsageError, match=r"steps=2\.5 is no whole number; try steps=25"):
        timesteps(2.5)


@patient
@given(st.integers(1, 1000))
def test_previous_walks_along_the_timesteps(n):
    ts = timesteps(n)
    walked = [previous(t, n) for t in ts]
    assert walked[:-1] == ts[1:].tolist()
    assert walked[-1] < ts[-1]
    assert all(type(t) is int for t in walked)


# --- noise in, noise out


@patient
@given(latents, latents, times)
def test_the_noise_and_the_clean_latent_come_back(x0, eps, t):
    x = add_noise(x0, eps, t, ALPHAS)
    np.testing.assert_allclose(predict_x0(x, eps, t, ALPHAS), x0, atol=1e-12)
    np.testing.assert_allclose(predict_eps(x, x0, t, ALPHAS), eps, atol=1e-12)


@patient
@given(latents, latents, times)
def test_velocity_holds_both(x0, eps, t):
    x = add_noise(x0, eps, t, ALPHAS)
    velocity = ALPHAS[t] ** 0.5 * eps - (1 - ALPHAS[t]) ** 0.5 * x0
    np.testing.assert_allclose(velocity_to_x0(x, velocity, t, ALPHAS), x0, atol=1e-12)
    np.testing.assert_allclose(velocity_to_eps(x, velocity, t, ALPHAS), eps, atol=1e-12)


@patient
@given(times)
def test_add_noise_keeps_the_power_of_unit_signals(t):
    signal = add_noise(np.ones(1), np.zeros(1), t, ALPHAS)
    noise = add_noise(np.zeros(1), np.ones(1), t, ALPHAS)
    np.testing.assert_allclose(signal**2, ALPHAS[t])
    np.testing.assert_allclose(signal**2 + noise**2, 1.0)
    np.testing.assert_allclose(snr(t, ALPHAS), (signal / noise) ** 2)


@pytest.mark.parametrize(
    "function", [add_noise, predict_x0, predict_eps, velocity_to_x0, velocity_to_eps]
)
@patient
@given(latents, latents, times, times)
def test_each_image_can_have_its_own_timestep(function, x, other, first, second):
    together = function(x, other, np.array([first, second]), ALPHAS)
    alone = [function(x[i], other[i], t, ALPHAS) for i, t in enumerate([first, second])]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-12)


def test_snr_falls_from_clean_to_noise():
    table = snr(np.arange(1000), ALPHAS)
    assert table.shape == (1000,) and np.all(np.diff(table) < 0)
    assert table[0] == snr(0, ALPHAS) and type(snr(0, ALPHAS)) is float


# --- one step


@pytest.mark.parametrize("eta", [0.0, 0.3])
@patient
@given(latents, latents, times_down)
def test_ddim_with_the_true_noise_lands_on_the_noised_latent(eta, x0, eps, down):
    """Eq. 12 by design: at eta 0 the step is exact; with eta the noise lost is the noise drawn."""
    t, t_prev = down
    x_prev, predicted = ddim_step(
        add_noise(x0, eps, t, ALPHAS), eps, t, t_prev, ALPHAS, eta, noise=np.zeros_like(eps)
    )
    drawn = (eta * posterior_deviation(t, t_prev)) ** 2
    left = (1 - ALPHAS[t_prev] - drawn) ** 0.5
    np.testing.assert_allclose(predicted, x0, atol=1e-12)
    np.testing.assert_allclose(x_prev, ALPHAS[t_prev] ** 0.5 * x0 + left * eps, atol=1e-12)


def posterior_deviation(t: int, t_prev: int) -> float:
    """√β̃, eq. 7 of arXiv 2006.11239, for a stride from t to t_prev."""
    beta = 1 - ALPHAS[t] / ALPHAS[t_prev]
    return ((1 - ALPHAS[t_prev]) / (1 - ALPHAS[t]) * beta) ** 0.5


@patient
@given(times_down, st.floats(0.01, 1))
def test_eta_scales_the_deviation_of_ddpm(down, eta):
    t, t_prev = down
    quiet, one = np.zeros(1), np.ones(1)
    ddim = ddim_step(quiet, quiet, t, t_prev, ALPHAS, eta, noise=one)[0]
    np.testing.assert_allclose(ddim, eta * posterior_deviation(t, t_prev), atol=1e-15)
    if t > 0:
        ddpm = ddpm_step(quiet, quiet, t, t_prev, ALPHAS, noise=one)[0]
        np.testing.assert_allclose(ddpm, posterior_deviation(t, t_prev), atol=1e-15)


@patient
@given(latents, latents, latents, times_down)
def test_ddim_at_eta_one_is_ddpm(x, eps, noise, down):
    t, t_prev = down
    ddim = ddim_step(x, eps, t, t_prev, ALPHAS, eta=1.0, noise=noise)
    ddpm = ddpm_step(x, eps, t, t_prev, ALPHAS, noise=noise)
    np.testing.assert_allclose(ddim, ddpm, atol=1e-10)


@patient
@given(times_down.filter(lambda down: down[0] > 0))
def test_a_ddpm_step_keeps_the_marginal(down):
    """From q(x | x0) at t to q(x | x0) at t_prev: mean √ᾱ·x0, variance 1 − ᾱ."""
    t, t_prev = down
    zero, one = np.zeros(1), np.ones(1)

    def response(x0: np.ndarray, in_x: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        x = add_noise(x0, in_x, t, ALPHAS)
        return ddpm_step(x, predict_eps(x, x0, t, ALPHAS), t, t_prev, ALPHAS, drawn)[0]

    np.testing.assert_allclose(response(one, zero, zero), ALPHAS[t_prev] ** 0.5, rtol=1e-9)
    variance = response(zero, one, zero) ** 2 + response(zero, zero, one) ** 2
    np.testing.assert_allclose(variance, 1 - ALPHAS[t_prev], rtol=1e-9)


@patient
@given(latents, latents, st.integers(-999, -1))
def test_the_last_ddim_step_stops_at_the_first_alpha(x, eps, t_prev):
    last = ddim_step(x, eps, 1, t_prev, ALPHAS)
    np.testing.assert_array_equal(last, ddim_step(x, eps, 1, 0, ALPHAS))
    np.testing.assert_allclose(predict_x0(last[0], eps, 0, ALPHAS), last[1], atol=1e-12)


@patient
@given(latents, latents, latents, st.integers(-999, -1))
def test_the_last_ddpm_step_is_the_clean_latent(x, eps, noise, t_prev):
    x_prev, x0 = ddpm_step(x, eps, 1, t_prev, ALPHAS, noise=noise)
    np.testing.assert_allclose(x_prev, x0, atol=1e-12)


def test_ddpm_adds_no_noise_at_zero():
    x, eps, noise = np.random.default_rng(0).standard_normal((3, 1, 2, 2, 4))
    silent = ddpm_step(x, eps, 0, -1, ALPHAS)
    np.testing.assert_array_equal(silent, ddpm_step(x, eps, 0, -1, ALPHAS, noise))


@patient
@given(latents, latents, times_down)
def test_a_ddim_step_up_is_undone_by_the_step_down(x, eps, down):
    t, t_prev = down
    up = ddim_step(x, eps, t_prev, t, ALPHAS)[0]
    np.testing.assert_allclose(ddim_step(up, eps, t, t_prev, ALPHAS)[0], x, atol=1e-12)


# --- what is handed in and out


@pytest.mark.parametrize("name", CALLS)
@patient
@given(floats, floats)
def test_results_have_the_dtype_of_x(name, kind, other_kind):
    x = np.ones((2, 2, 2, 4), kind)
    other = np.ones((2, 2, 2, 4), other_kind)
    result = calls(x, other, other)[name]()
    assert result.dtype == kind and result.shape == x.shape


@pytest.mark.parametrize("name", CALLS)
def test_bfloat16_stays_bfloat16(name):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x, other, noise = np.ones((3, 2, 2, 2, 4)).astype(bfloat16)
    assert calls(x, other, noise)[name]().dtype == bfloat16


@pytest.mark.parametrize("name", CALLS)
@patient
@given(latents, latents, latents)
def test_arrays_handed_in_are_not_written_to(name, x, other, noise):
    result = calls(frozen(x), frozen(other), frozen(noise))[name]()
    assert not any(np.shares_memory(result, array) for array in (x, other, noise))


@pytest.mark.parametrize("name", CALLS)
def test_whole_numbers_are_refused(name):
    x, other, noise = np.ones((3, 2, 2, 2, 4), np.uint8)
    with pytest.raises(TypeError, match="float arrays, not uint8"):
        calls(x, other, noise)[name]()


@pytest.mark.parametrize("t", [-1, 1000, np.array([5, 1000])])
def test_a_timestep_off_the_table_is_an_error(t):
    with pytest.raises(IndexError, match="from 0 to 999"):
        add_noise(np.ones((2, 1)), np.ones((2, 1)), t, ALPHAS)


def test_a_noisy_step_needs_noise():
    x = np.ones(1)
    with pytest.raises(ValueError, match="pass noise=, or eta=0"):
        ddim_step(x, x, 501, 481, ALPHAS, eta=0.5)
    with pytest.raises(ValueError, match="t=501: pass noise="):
        ddpm_step(x, x, 501, 481, ALPHAS)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_runs_from_zero_to_one(eta):
    x = np.ones(1)
    with pytest.raises(ValueError, match="eta must be from 0"):
        ddim_step(x, x, 501, 481, ALPHAS, eta, noise=x)


def test_noise_is_drawn_only_on_the_way_down():
    x = np.ones(1)
    with pytest.raises(ValueError, match="only on the way down"):
        ddim_step(x, x, 481, 501, ALPHAS, eta=0.5, noise=x)
    with pytest.raises(ValueError, match="only on the way down"):
        ddpm_step(x, x, 481, 501, ALPHAS, noise=x)


# --- what diffusers wrote


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads((GOLDEN / "scheduler.json").read_text(encoding="utf-8"))


def test_alphas_are_those_of_diffusers(golden):
    for t, alpha in golden["alphas"].items():
        np.testing.assert_allclose(ALPHAS[int(t)], alpha, rtol=1e-6)


@pytest.mark.parametrize("row", range(4), ids=["ddim 0", "ddim 0.5", "ddim 1", "ddpm"])
def test_a_run_of_seven_steps_is_that_of_diffusers(golden, row):
    run = golden["runs"][row]
    fake_eps = runpy.run_path(str(GOLDEN / "make_scheduler.py"))["fake_eps"]
    assert timesteps(7).tolist() == run["timesteps"]
    x = np.array(run["start"])
    for i, t in enumerate(run["timesteps"]):
        eps, noise, t_prev = fake_eps(x, t), np.array(run["noise"][i]), previous(t, 7)
        if run["step"] == "ddim":
            x, x0 = ddim_step(x, eps, t, t_prev, ALPHAS, run["eta"], noise)
        else:
            x, x0 = ddpm_step(x, eps, t, t_prev, ALPHAS, noise)
        np.testing.assert_allclose(x, run["x_prev"][i], atol=1e-5)
        np.testing.assert_allclose(x0, run["x0"][i], atol=1e-5)
