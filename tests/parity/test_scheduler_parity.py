"""Whole denoising runs, ours and diffusers', on the same made-up network and the same noise."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from stable_diffusion_tf.scheduler import (
    add_noise,
    alphas_cumprod,
    ddim_step,
    ddpm_step,
    linspace_timesteps,
    previous,
    timesteps,
    trailing_timesteps,
    velocity_to_eps,
    velocity_to_x0,
)

pytestmark = pytest.mark.parity

GOLDEN = Path(__file__).parents[1] / "golden"
ALPHAS = alphas_cumprod()
SHAPE = (2, 3, 5, 4)

# diffusers keeps its table in float32, which costs digits where the stride is short (n > 500). So:
# once as diffusers comes, and once with its table in float64, where only its floor of 1e-20 under
# the variance remains.
CASES = [
    *[("stock_scheduler", n, 1e-5) for n in (1, 7, 25, 50)],
    *[("stock_scheduler", n, 1e-4) for n in (600, 1000)],
    *[("precise_scheduler", n, 1e-9) for n in (1, 7, 25, 50, 600, 1000)],
]


@pytest.fixture(scope="module")
def oracle() -> dict:
    return runpy.run_path(str(GOLDEN / "make_scheduler.py"))


def offset_for(n: int) -> int:
    """diffusers reads past its table for n = 1000 with the offset; ours drops it there."""
    return 0 if n == 1000 else 1


def parting(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference as a share of the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(("make", "n", "tolerance"), CASES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_runs_agree(oracle, make, n, tolerance, eta):
    run = oracle["ddim_run"](oracle[make]("DDIMScheduler", n, offset_for(n)), eta, SHAPE)
    np.testing.assert_array_equal(timesteps(n), run.timesteps)
    x = run.start
    for i, t in enumerate(timesteps(n)):
        eps = oracle["fake_eps"](x, t)
        x, x0 = ddim_step(x, eps, t, previous(t, n), ALPHAS, eta, run.noise[i])
        assert parting(x, run.x_prev[i]) < tolerance
        assert parting(x0, run.x0[i]) < tolerance


@pytest.mark.parametrize(("make", "n", "tolerance"), CASES)
def test_ddpm_runs_agree(oracle, make, n, tolerance):
    run = oracle["ddpm_run"](oracle[make]("DDPMScheduler", n, offset_for(n)), SHAPE)
    np.testing.assert_array_equal(timesteps(n), run.timesteps)
    x = run.start
    for i, (t, t_prev) in enumerate(zip(timesteps(n), [*timesteps(n)[1:], -1], strict=True)):
        x, x0 = ddpm_step(x, oracle["fake_eps"](x, t), t, t_prev, ALPHAS, run.noise[i])
        assert parting(x, run.x_prev[i]) < tolerance
        assert parting(x0, run.x0[i]) < tolerance


def test_alphas_agree(oracle):
    theirs = oracle["stock_scheduler"]("DDIMScheduler", 50).alphas_cumprod.numpy()
    np.testing.assert_allclose(ALPHAS, theirs, rtol=1e-5)


@pytest.mark.parametrize("start, end", [(0.0001, 0.02), (0.00085, 0.012)])
def test_linear_alphas_agree(start, end):
    import diffusers

    theirs = diffusers.DDIMScheduler(beta_start=start, beta_end=end, beta_schedule="linear")
    ours = alphas_cumprod(start, end, schedule="linear")
    np.testing.assert_allclose(ours, theirs.alphas_cumprod.numpy(), rtol=1e-4)


@pytest.mark.parametrize("n", [1, 3, 4, 7, 25, 50, 600, 1000])
@pytest.mark.parametrize(
    ("spacing", "ours"), [("trailing", trailing_timesteps), ("linspace", linspace_timesteps)]
)
def test_timesteps_of_other_spacings_agree(n, spacing, ours):
    import diffusers

    theirs = diffusers.DDIMScheduler(timestep_spacing=spacing)
    theirs.set_timesteps(n)
    np.testing.assert_array_equal(ours(n), theirs.timesteps)


def test_noising_agrees(oracle):
    import torch

    scheduler = oracle["stock_scheduler"]("DDIMScheduler", 50)
    x0, noise = np.random.default_rng(1).standard_normal((2, 1000, 1, 1, 4))
    theirs = scheduler.add_noise(torch.from_numpy(x0), torch.from_numpy(noise), torch.arange(1000))
    assert parting(add_noise(x0, noise, np.arange(1000), ALPHAS), theirs.numpy()) < 1e-5


@pytest.mark.parametrize("t", [1, 481, 981])
def test_velocities_agree(oracle, t):
    """A DDIM step on a velocity is one on the noise and the clean latent that it stands for."""
    import torch

    scheduler = oracle["precise_scheduler"]("DDIMScheduler", 50)
    scheduler.register_to_config(prediction_type="v_prediction")
    x, velocity = np.random.default_rng(2).standard_normal((2, *SHAPE))
    step = scheduler.step(torch.from_numpy(velocity), t, torch.from_numpy(x), return_dict=False)
    x_prev, x0 = (tensor.numpy() for tensor in step)
    eps = velocity_to_eps(x, velocity, t, ALPHAS)
    ours = ddim_step(x, eps, t, previous(t, 50), ALPHAS)
    assert parting(ours[0], x_prev) < 1e-9
    assert parting(ours[1], x0) < 1e-9
    assert parting(velocity_to_x0(x, velocity, t, ALPHAS), x0) < 1e-9
