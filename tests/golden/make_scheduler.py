"""Write scheduler.json: whole runs of diffusers' DDIM and DDPM schedulers on a made-up network.

python tests/golden/make_scheduler.py        (needs torch, diffusers, requirements-oracle.txt)
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

GOLDEN = Path(__file__).with_name("scheduler.json")
SD1 = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "timestep_spacing": "leading",
}
ETAS = (0.0, 0.5, 1.0)


class Run(NamedTuple):
    """What a scheduler did, step by step; x and noise in float64."""

    timesteps: np.ndarray  # (n,)
    start: np.ndarray  # the latent before the first step, of the asked-for shape
    noise: np.ndarray  # (n, *shape) what each step was given to add
    x_prev: np.ndarray  # (n, *shape)
    x0: np.ndarray  # (n, *shape)


def fake_eps(x: np.ndarray, t: int) -> np.ndarray:
    """Stands for the network: smooth in x and t, not linear, about as large as noise."""
    return 0.6 * np.tanh(x) + 0.4 * np.sin(2.0 * x + t / 50.0)


def stock_scheduler(name: str, n: int, offset: int = 1):
    """diffusers' scheduler of that name as SD 1.x sets it, ready for n steps."""
    import diffusers

    unlike_ddpm = {"set_alpha_to_one": False} if name == "DDIMScheduler" else {}
    scheduler = getattr(diffusers, name)(**SD1, steps_offset=offset, **unlike_ddpm)
    scheduler.set_timesteps(n)
    return scheduler


def precise_scheduler(name: str, n: int, offset: int = 1):
    """The same with its table in float64.

    In the stock one 1 - ᾱ/ᾱ_prev loses up to four digits when the stride is short.
    """
    import torch

    scheduler = stock_scheduler(name, n, offset)
    ends = SD1["beta_start"] ** 0.5, SD1["beta_end"] ** 0.5
    betas = torch.linspace(*ends, 1000, dtype=torch.float64) ** 2
    scheduler.alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def ddim_run(scheduler, eta: float, shape: tuple[int, ...]) -> Run:
    """A whole run of diffusers' DDIMScheduler."""
    import torch

    def step(eps: np.ndarray, t: int, x: np.ndarray, noise: np.ndarray) -> tuple:
        drawn = torch.from_numpy(noise) if eta > 0 else None
        eps, x = torch.from_numpy(eps), torch.from_numpy(x)
        return scheduler.step(eps, t, x, eta=eta, variance_noise=drawn, return_dict=False)

    return _walk_down(scheduler.timesteps.tolist(), step, shape)


def ddpm_run(scheduler, shape: tuple[int, ...]) -> Run:
    """A whole run of diffusers' DDPMScheduler, which draws the noise itself: drawn again here."""
    import torch

    def step(eps: np.ndarray, t: int, x: np.ndarray, noise: np.ndarray) -> tuple:
        noise[...] = torch.randn(shape, generator=seeded(t), dtype=torch.float64).numpy()
        eps, x = torch.from_numpy(eps), torch.from_numpy(x)
        return scheduler.step(eps, t, x, generator=seeded(t), return_dict=False)

    def seeded(t: int) -> torch.Generator:
        return torch.Generator().manual_seed(t)

    return _walk_down(scheduler.timesteps.tolist(), step, shape)


def _walk_down(timesteps: list[int], step, shape: tuple[int, ...]) -> Run:
    """Let `step(eps, t, x, noise)` → (x_prev, x0) take a latent down the timesteps."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal(shape)
    noise = rng.standard_normal((len(timesteps), *shape))
    x, xs, x0s = start, [], []
    for i, t in enumerate(timesteps):
        x, x0 = (tensor.numpy() for tensor in step(fake_eps(x, t), t, x, noise[i]))
        xs.append(x)
        x0s.append(x0)
    return Run(np.array(timesteps), start, noise, np.array(xs), np.array(x0s))


def main() -> None:
    import diffusers

    ddim, ddpm = stock_scheduler("DDIMScheduler", 7), stock_scheduler("DDPMScheduler", 7)
    table = ddim.alphas_cumprod.tolist()
    rows = [
        *({"step": "ddim", "eta": eta, **_listed(ddim_run(ddim, eta, (1, 3)))} for eta in ETAS),
        {"step": "ddpm", "eta": 1.0, **_listed(ddpm_run(ddpm, (1, 3)))},
    ]
    golden = {
        "from": f"diffusers {diffusers.__version__}",
        "alphas": {str(t): table[t] for t in (0, 1, 20, 250, 500, 981, 999)},
        "runs": rows,
    }
    GOLDEN.write_text(json.dumps(golden) + "\n", encoding="utf-8")
    print(f"{len(rows)} runs, {GOLDEN.stat().st_size:,} bytes → {GOLDEN.name}")


def _listed(run: Run) -> dict[str, list]:
    return {name: np.round(values, 9).tolist() for name, values in run._asdict().items()}


if __name__ == "__main__":
    main()
