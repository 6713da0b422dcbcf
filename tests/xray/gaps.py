"""How far a run of the phantom under probes and edits that change nothing is from the plain one,
and how far rounding alone takes it.

KERAS_BACKEND=jax python -m tests.xray.gaps gaps.npz
"""

import sys
import tempfile

import numpy as np

from stable_diffusion_tf import StableDiffusion
from xray.film import Film
from xray.probe import Edit, Mean, Probe
from xray.probe.instrumented import instrument
from xray.rounding import nudged, spread

CROSS = "unet.*.attn2.probs"
STEPS, SEED = 3, 1
NUDGES = 3  # starts that are off by a last bit, of which the floor is the furthest
HARMLESS = {
    "mean of cross-attention": {"probes": [Probe(CROSS, Mean("head"))]},
    "everything read": {"probes": [Probe("unet.*"), Probe("unet.*:in")]},
    "everything written back": {"edits": [Edit("unet.*", lambda x: x)]},
    "edits of no step": {"edits": [Edit(CROSS, lambda x: x * 0, steps=[])]},
}


def noise(
    sd: StableDiffusion, start: np.ndarray | None = None, **rules
) -> tuple[np.ndarray, list[dict]]:
    """The predicted noise at each step of a run from `start`, or from a seed, and what was read."""
    context = sd.encode_text(["a cat left of an apple", ""])
    made, read = [], []
    seen = instrument(sd, **rules)
    for step in seen.denoise(context[:1], context[1:], steps=STEPS, seed=SEED, latent=start):
        made.append(step.eps)
        read.append(dict(seen.reads))
    return np.stack(made), read


def gaps() -> dict[str, float]:
    """Largest difference over the largest value, of the noise at every step; `rounding`: the same,
    of runs whose starts are a last bit apart."""
    sd = StableDiffusion.load("phantom")
    plain, _ = noise(sd)
    _, own = noise(sd, probes=[Probe(CROSS)])
    runs = HARMLESS | {"patched with itself": {"edits": [Edit(CROSS, source=own)]}}
    made = {name: noise(sd, **rules)[0] for name, rules in runs.items()}
    start = sd.draw_noise(SEED)
    same = [plain, *(noise(sd, nudged(start, seed))[0] for seed in range(NUDGES))]
    unit = np.abs(plain).max()
    found = {name: float(np.abs(eps - plain).max() / unit) for name, eps in made.items()}
    return found | {"film replayed": replayed(sd), "rounding": spread(same) / float(unit)}


def replayed(sd: StableDiffusion) -> float:
    """The largest difference between a film and its run once more."""
    with tempfile.TemporaryDirectory() as out:
        film = Film.shoot(sd, "a cat", steps=STEPS, probes=[Probe(CROSS, Mean("head"))], out=out)
        again = film.replay(sd)
    assert len(again.rows) > STEPS * len(film.names), "each array of each step, text and picture"
    assert film.names[1].startswith("unet.down_blocks.0"), "in order of execution"
    return max(row.difference for row in again.rows)


if __name__ == "__main__":
    np.savez(sys.argv[1], **gaps())
