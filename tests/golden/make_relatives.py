"""Write relatives.npz: what diffusers makes of an LCM and of TAESD, whose weights are drawn.

python tests/golden/make_relatives.py        (needs torch, diffusers, transformers)
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from stable_diffusion_tf.lcm import guidance_embedding
from tests import oracles
from tests.golden.make_scheduler import Run, fake_eps
from tests.oracles import LCM, TAESD

GOLDEN = Path(__file__).with_name("relatives.npz")
RUN = {"steps": 4, "guidance": 8.0, "seed": 5}


def lcm_inputs(guidance: float = 7.5) -> tuple[np.ndarray, ...]:
    """What the LCM's UNet is tried on: latent, t, context, guidance embedding."""
    embedding = guidance_embedding(guidance, LCM.unet.time_cond_proj_dim)
    return *oracles.inputs(LCM)["unet"], embedding.repeat(2, axis=0)


def stock_embedding(guidance: float, width: int) -> np.ndarray:
    """(1, width): diffusers' embedding of a guidance scale, float64."""
    import diffusers
    import torch

    embed = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
    return embed(None, torch.tensor([guidance - 1.0]), width, torch.float64).numpy()


def tiny_inputs() -> dict[str, np.ndarray]:
    """What TAESD is tried on."""
    pictures = np.tanh(oracles.random_array(2, 16, 24, 3, seed=2))
    return {"encoder": pictures, "decoder": 3 * oracles.random_array(2, 4, 6, 4)}


def run_context() -> np.ndarray:
    return oracles.random_array(2, 77, LCM.unet.cross_attention_dim, seed=6)


def made_up_run(n: int, shape: tuple[int, ...]) -> Run:
    """A whole run of diffusers' LCMScheduler on a made-up network; x and noise in float64."""
    import torch

    scheduler, rng = oracles.lcm(), np.random.default_rng(0)
    scheduler.set_timesteps(n)
    start, noise = rng.standard_normal(shape), rng.standard_normal((n, *shape))
    x, xs, x0s = torch.from_numpy(start), [], []
    with oracles.given_noise(map(torch.from_numpy, noise)):
        for t in scheduler.timesteps:
            eps = torch.from_numpy(fake_eps(x.numpy(), int(t)))
            x, x0 = scheduler.step(eps, t, x, return_dict=False)
            xs.append(x.numpy())
            x0s.append(x0.numpy())
    return Run(scheduler.timesteps.numpy(), start, noise, np.array(xs), np.array(x0s))


def last_latent(unet: Any) -> np.ndarray:
    """Where a run of diffusers' LCM ends, (2, h, w, 4), with the noise that we draw."""
    shape = 2, LCM.unet.sample_size, LCM.unet.sample_size, 4
    x = oracles.to_torch(
        np.random.default_rng(RUN["seed"]).standard_normal(shape, np.float32), unet
    )
    *_, embedding = lcm_inputs(RUN["guidance"])
    scheduler = oracles.lcm()
    scheduler.set_timesteps(RUN["steps"])
    with oracles.given_noise(oracles.noise_between_steps(RUN["seed"], shape, unet)):
        for t in scheduler.timesteps:
            now, times = oracles.to_numpy(x), np.full(2, int(t))
            eps = oracles.guided_noise_of(unet, now, times, run_context(), embedding)
            x = scheduler.step(oracles.to_torch(eps, unet), t, x).prev_sample
    return oracles.to_numpy(x)


def main() -> None:
    models = oracles.oracles(LCM)
    tiny = oracles.filled(oracles.taesd(TAESD), draw=oracles.draw_loud)
    shapes = {k: list(v.shape) for k, v in tiny.state_dict().items()}
    golden = {
        "lcm/names": np.array(json.dumps(oracles.names_of(models))),
        "taesd/names": np.array(json.dumps(shapes)),
    }
    oracles.sharpen(models)
    asked, run = tiny_inputs(), made_up_run(4, (1, 3))
    answers = {
        "lcm/embedding": stock_embedding(RUN["guidance"], 256),
        "lcm/unet": oracles.guided_noise_of(models.unet, *lcm_inputs()),
        "lcm/denoise": last_latent(models.unet),
        "taesd/encoder": oracles.latents_of(tiny.double(), asked["encoder"]),
        "taesd/decoder": oracles.images_of(tiny, asked["decoder"]),
    }
    golden |= {name: answer.astype(np.float32) for name, answer in answers.items()}
    golden |= {f"run/{name}": values for name, values in run._asdict().items()}
    np.savez_compressed(GOLDEN, **golden)
    print(f"{len(golden)} arrays, {GOLDEN.stat().st_size:,} bytes → {GOLDEN.name}")


if __name__ == "__main__":
    main()
