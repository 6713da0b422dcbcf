"""How a number made of the noise changes with values inside a small UNet: as gradients say
and as finite differences do.

KERAS_BACKEND=jax python -m tests.xray.slopes checkpoint-folder slopes.npz
"""

import sys

import numpy as np
from keras import ops

from stable_diffusion_tf import StableDiffusion
from xray.probe.gradients import gradient

CROSS, BLOCK = "unet.*.attn2.probs", "unet.up_blocks.0"
PLACES = (CROSS, BLOCK, "x", "context")
RNG = np.random.default_rng(3)


def squares(noise, weight):
    return ops.sum(noise**2 * weight, axis=(1, 2, 3))


def asked(sd) -> tuple[tuple, np.ndarray]:
    """What the UNet is given, two rows, and the weights of a sum of squares."""
    context = sd.encode_text(["", "a cat left of an apple"])
    x = sd.draw_noise(0, 2)
    return (x, np.array([700, 300]), context), RNG.random(x.shape).astype(np.float32)


def slopes(sd, at: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """For each value the slope along a way upwards: as its gradient says, and as two calls do."""
    arguments, weight = asked(sd)
    by = gradient(sd, squares, at)
    told, found = by(*arguments, [weight]), {}
    for address, slope in told.gradients.items():
        size = 1e-2 * np.abs(told.values[address]).mean()
        way = size * np.sign(slope) * RNG.uniform(0.5, 1.5, slope.shape)  # far above rounding
        up, down = (by(*arguments, [weight], {address: s * way}).value for s in (1, -1))
        found[address] = float(np.sum(slope * way)), (up - down) / 2
    return found


def close(found: dict[str, np.ndarray]) -> bool:
    """Whether every slope is what the finite difference says, and none is nothing."""
    return all(abs(told - wanted) < 0.03 * abs(wanted) for told, wanted in found.values())


if __name__ == "__main__":
    model = StableDiffusion.load(sys.argv[1])
    np.savez(sys.argv[2], **slopes(model, PLACES))
