"""Write networks.npz: what diffusers and transformers make of weights and inputs that are drawn.

python tests/golden/make_networks.py        (needs torch, diffusers, transformers)
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests import oracles
from tests.oracles import ANATOMIES, Anatomy

GOLDEN = Path(__file__).with_name("networks.npz")
CHOSEN = ("bk-sdm-tiny", "odd")
RUN = {"steps": 3, "guidance": 3.0, "seed": 5}


def run_contexts(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """(2, 77, width) and (1, 77, width): what a run is conditioned on, and not."""
    width = anatomy.unet.cross_attention_dim
    return oracles.random_array(2, 77, width, seed=6), oracles.random_array(1, 77, width, seed=7)


def last_latent(models: SimpleNamespace, anatomy: Anatomy) -> np.ndarray:
    """Where a run of diffusers' DDIM ends, (2, h, w, 4)."""
    import torch

    side = anatomy.unet.sample_size
    noise = np.random.default_rng(RUN["seed"]).standard_normal((2, side, side, 4), np.float32)
    context, uncond = run_contexts(anatomy)
    scheduler = oracles.ddim()
    scheduler.set_timesteps(RUN["steps"])
    x = oracles.to_torch(noise, models.unet)
    for t in scheduler.timesteps:
        times, now = np.full(2, int(t)), oracles.to_numpy(x)
        bare = oracles.noise_of(models.unet, now, times, uncond.repeat(2, axis=0))
        eps = bare + RUN["guidance"] * (oracles.noise_of(models.unet, now, times, context) - bare)
        x = scheduler.step(oracles.to_torch(eps, models.unet), t, x).prev_sample
    assert x.dtype == torch.float64
    return oracles.to_numpy(x)


def main() -> None:
    golden = {}
    for name in CHOSEN:
        anatomy = ANATOMIES[name]
        models = oracles.oracles(anatomy)
        golden[f"{name}/names"] = np.array(json.dumps(oracles.names_of(models)))
        oracles.sharpen(models)
        answers = oracles.answers(models, oracles.inputs(anatomy))
        answers["denoise"] = last_latent(models, anatomy)
        golden |= {f"{name}/{part}": a.astype(np.float32) for part, a in answers.items()}
    np.savez_compressed(GOLDEN, **golden)
    print(f"{len(golden)} arrays, {GOLDEN.stat().st_size:,} bytes → {GOLDEN.name}")


if __name__ == "__main__":
    main()
