"""How many steps does a picture need?

The same noises are drawn in few steps and in many. Without sampling noise (DDIM, η = 0) the steps
follow an equation with one solution (arXiv 2010.02502): the picture of n steps should near that of
the longest run as n grows. With sampling noise σ_t z at each step (η = 1, as DDPM, arXiv
2006.11239) every run ends at a picture of its own, and many steps bring it no nearer than few.

Top: one noise, drawn by both. Below, with 95 % intervals over the noises: the distance to the large
picture, beside a line that falls as 1/n, and, on the phantom, how many show what was asked for.
"Enough" are the steps from which on the whole interval lies within 2 % of full scale. Numbers that
divide 1000 are best: "leading" spacing leaves out the noisiest timesteps of others.

The paper (table 1, CIFAR-10) needs many: FID 13.4 in 10 steps, 4.0 in 1000 (η = 1: 41 and 4.7). The
phantom's pictures are flat and small: it needs fewer. The control is the shortest run with another
seed for the sampling noise: bit for bit the same where η = 0, and another picture where η = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import stable_diffusion_tf
from experiments.figures import fast_sampling as figures
from phantom.prompts import as_asked
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import script
from xray.measure import distance, mean_of
from xray.methods.drawing import decode, draw
from xray.options import EXAMPLE, Batch, Prompt, check_rising
from xray.report import Control, Report

NEAR = 2.0  # per cent of full scale, RMS: pictures that near are alike to the eye
SAMPLERS = {"DDIM, η = 0": 0.0, "DDPM, η = 1": 1.0}
WRONG = "another seed moves DDIM, or does not move a run with sampling noise"


@dataclass(frozen=True)
class Options(Batch):
    guided: ClassVar[bool] = True
    renamed: ClassVar = {"--longest": "--steps"}

    prompt: Prompt = EXAMPLE
    """what to draw."""
    counts: tuple[int, ...] = (5, 10, 25, 50)
    """of steps, rising."""
    steps: int = 100
    """of the run that the others are compared with."""
    pictures: int = 24

    def check(self) -> None:
        super().check()
        check_rising("counts", self.counts, 1)
        if not 0 < self.counts[0] <= self.counts[-1] < self.steps:
            raise UsageError("counts are from 1 to below --steps; try --counts 5 10 --steps 100")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    context, uncond = np.split(sd.encode_text([options.prompt, ""]), 2)
    noise = sd.draw_noise(options.seed, options.pictures)
    context = np.repeat(context, len(noise), 0)
    asked = {"uncond": uncond, "guidance": options.guidance, "seed": options.seed}
    sd.denoise(context, steps=options.steps, latent=noise, **asked)  # not begun: it looks
    latents = {
        (name, n): draw(sd, context, noise, asked | {"eta": eta, "steps": n})
        for name, eta in SAMPLERS.items()
        for n in options.counts
    }
    end = decode(sd, draw(sd, context, noise, asked | {"steps": options.steps}))
    images = {run: decode(sd, ends) for run, ends in latents.items()}
    table = [
        {"sampler": name, "steps": n, "away": mean_of(50 * distance(some, end), "%")}
        | as_asked(to_uint8(some), options.prompt)
        for (name, n), some in images.items()
    ]
    plain, _ = SAMPLERS
    usual = mean_of(50 * distance(end, np.roll(end, 1, axis=0)), "%")
    table += [{"sampler": plain, "steps": options.steps} | as_asked(to_uint8(end), options.prompt)]
    table += [{"sampler": "another noise", "steps": options.steps, "away": usual}]
    other = asked | {"steps": options.counts[0], "seed": options.seed + 1}
    still, fresh = (
        np.abs(draw(sd, context, noise, other | {"eta": eta}) - latents[name, other["steps"]]).max()
        for name, eta in SAMPLERS.items()
    )
    finding = find(table, plain, options.steps, usual.short)
    moved = f"{still:g} with η = 0, {fresh:.2g} with η = 1"
    return Report(
        finding,
        Control("another seed moves the latents by", moved, bool(still == 0 < fresh), WRONG),
        numbers={f"{row['sampler']}, {row['steps']} steps": row.get("away") for row in table},
        table=table,
        figure=figures.steps_sheet(images, end, table, finding),
        tensors={f"{name}.{n}": ends for (name, n), ends in latents.items()} | {"longest": end},
    )


def find(table: Sequence[dict[str, Any]], plain: str, longest: int, usual: str) -> str:
    """From how many steps on all are within NEAR of the longest run."""
    runs = [row for row in table if row["sampler"] == plain and "away" in row]
    near = [row["away"].within(NEAR) for row in runs]
    start = len(near) - ([*near[::-1], False]).index(False)
    row = runs[min(start, len(runs) - 1)]
    off = f"they end {row['away']} off the picture of {longest} steps, another noise {usual}."
    return f"{row['steps']} DDIM steps are {'enough' if start < len(near) else 'too few'}: {off}"


if __name__ == "__main__":
    script.run_experiment(main, Options)
