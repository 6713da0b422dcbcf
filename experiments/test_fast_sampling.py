"""How many steps does a picture need?

The same noises are drawn in few steps and in many. Without fresh noise (DDIM, η = 0) the steps
follow an equation with one solution (arXiv 2010.02502): the picture of n steps should near that of
the longest run as n grows. With fresh noise at each step (η = 1, as DDPM, arXiv 2006.11239)
every run ends at a picture of its own, and many steps bring it no nearer than few.

Top: one noise, drawn by both; the number is its distance to the large picture. Below, with standard
errors over the noises: the distance, the time that a picture takes in a batch of all, and, on the
phantom, the share that the judge finds right. DDIM 1000 would take minutes, so the longest run has
125 steps: an error that falls as 1/n looks smaller by 50/125 at 50 steps. Numbers that divide 1000
are best: of others, "leading" spacing leaves out the noisiest timesteps (150 steps begin at 895).

The paper (table 1, CIFAR-10) needs many: FID 13.4 in 10 steps, 4.0 in 1000 (η = 1: 41 and 4.7). The
phantom's pictures are flat and small, and its judge looks for things, not for finish: it needs
fewer. The control is the shortest run again with another seed for the fresh noise: bit for bit the
same where η = 0, and another picture where η = 1.
"""

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import fast_sampling as figures
from experiments.figures.fast_sampling import Longest, Sampled
from phantom.prompts import shown
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import measure, script
from xray.measure.telling import with_error
from xray.methods.drawing import decode, draw

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

EXAMPLE = "a rabbit left of a strawberry on a purple background"
COUNTS = (5, 10, 25, 50)
SAMPLERS = {"DDIM, η = 0": 0.0, "DDPM, η = 1": 1.0}


class Drawn(NamedTuple):
    """Where the runs from some noises ended, and the seconds that each of them took."""

    latents: np.ndarray  # (pictures, h, w, 4)
    images: np.ndarray  # (pictures, H, W, 3) in [-1, 1]
    seconds: float


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    counts: tuple[int, ...] = COUNTS,
    longest: int = 125,
    pictures: int = 8,
    guidance: float = 7.5,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """The same noises drawn in few steps and in many.

    Args:
        prompt: what to draw.
        counts: of steps, rising.
        longest: steps of the run that the others are compared with.
        pictures: drawn with each number of steps, 2 to 64.
        guidance: how far the words' share is exaggerated.
        seed: draws the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    if any(b <= a for a, b in pairwise([0, *counts, longest])):
        raise UsageError("counts and the longest must rise; try --counts 5 10 25 --longest 100")
    script.check_range("pictures", pictures, 2, 64, 8)
    sd = script.load_model(weights)
    if sd.unet_config.time_cond_proj_dim:
        raise UsageError(f"{weights} has steps of its own kind, not DDIM's; name other weights")
    context, uncond = np.split(sd.encode_text([prompt, ""]), 2)
    noise = sd.draw_noise(seed, pictures)
    run = {"uncond": uncond, "guidance": guidance, "seed": seed}
    for count in (*counts, longest):
        sd.denoise(context, **run, steps=count)  # not begun: it looks
    folder = script.make_folder(out, "test_fast_sampling", prompt)
    with script.saving_into(folder):
        context = np.repeat(context, pictures, 0)
        other = {**run, "steps": counts[0], "seed": seed + 1}
        again = {  # first, so that nothing is compiled while the others are timed
            name: draw_timed(sd, context, noise, {**other, "eta": eta})
            for name, eta in SAMPLERS.items()
        }
        drawn = {
            name: [draw_timed(sd, context, noise, {**run, "eta": eta, "steps": n}) for n in counts]
            for name, eta in SAMPLERS.items()
        }
        end = draw_timed(sd, context, noise, {**run, "steps": longest})
        samplers = [measure_runs(name, runs, end, prompt) for name, runs in drawn.items()]
        aim = measure_longest(end, longest, prompt)
        title = finding(counts, samplers, aim)
        sheet = figures.steps_sheet(counts, samplers, aim, f"“{prompt}”: {title}")
        script.save_figure(sheet, folder / "steps.png")
        latents = {name: np.stack([one.latents for one in runs]) for name, runs in drawn.items()}
        save_file({**latents, "longest": end.latents}, folder / "latents.safetensors")
    tell(counts, samplers, aim)
    moved = [float(np.abs(latents[name][0] - again[name].latents).max()) for name in SAMPLERS]
    script.conclude(
        title,
        f"another seed moves the latents by {moved[0]:g}, with η = 1 by {moved[1]:.2g}",
        picture=folder / "steps.png",
        tensors=folder / "latents.safetensors",
    )
    check_control(*moved)


def check_input(counts: Sequence[int], longest: int, pictures: int) -> None:
    if any(b <= a for a, b in pairwise([0, *counts, longest])):
        raise UsageError("counts and the longest must rise; try --counts 5 10 25 --longest 100")
    script.check_range("pictures", pictures, 2, 64, 8)


def draw_timed(sd: "StableDiffusion", context: np.ndarray, noise: np.ndarray, run: dict) -> Drawn:
    started = time.perf_counter()
    latents = draw(sd, context, noise, run)
    images = decode(sd, latents)
    return Drawn(latents, images, (time.perf_counter() - started) / len(noise))


def check_control(plain: float, fresh: float) -> None:
    """Raises SystemExit unless another seed of the fresh noise moves just the run that has some."""
    if plain or not fresh:
        raise SystemExit(f"the control failed: it moves DDIM by {plain:g}, and η = 1 by {fresh:g}")


# --- measuring ---------------------------------------------------------------------------------


def measure_runs(name: str, runs: Sequence[Drawn], end: Drawn, prompt: str) -> Sampled:
    images = np.stack([run.images for run in runs])
    seconds = np.array([run.seconds for run in runs])
    right = [shown(to_uint8(some), prompt) for some in images]
    judged = None if right[0] is None else 100.0 * np.stack(right)
    far = np.stack([50 * measure.distance(some, end.images) for some in images])
    return Sampled(name, images, far, seconds, judged)


def measure_longest(end: Drawn, steps: int, prompt: str) -> Longest:
    usual = 50 * float(measure.distance(end.images, np.roll(end.images, 1, axis=0)).mean())
    right = shown(to_uint8(end.images), prompt)
    judged = None if right is None else 100.0 * right
    return Longest(steps, end.images[0], end.seconds, usual, judged)


def find_enough(right: np.ndarray, aim: np.ndarray) -> int | None:
    """The first number of steps from which on no fewer are right than in the longest run, by two
    standard errors of the difference: (counts, pictures), (pictures,) → its index, or None."""
    less = aim - right
    fewer = np.flatnonzero(less.mean(1) > 2 * measure.standard_error(less, axis=1))
    start = fewer[-1] + 1 if len(fewer) else 0
    return int(start) if start < len(right) else None


# --- telling -----------------------------------------------------------------------------------


def tell(counts: Sequence[int], samplers: Sequence[Sampled], aim: Longest) -> None:
    print("sampler       steps   UNet calls   seconds   distance, %   right, %")
    for name, _, far, seconds, right in samplers:
        for i, count in enumerate(counts):
            cost = f"{count:6} {2 * count:12} {seconds[i]:9.2f}"
            judged = "" if right is None else with_error(right[i], 0)
            print(f"{name:12} {cost}   {with_error(far[i]):13} {judged}".rstrip())
    print(f"{samplers[0].name:12} {aim.steps:6} {2 * aim.steps:12} {aim.seconds:9.2f}   ", end="")
    print(f"(another noise: {aim.usual:.1f} % away)")


def finding(counts: Sequence[int], samplers: Sequence[Sampled], aim: Longest) -> str:
    plain, fresh = samplers
    first, last, other = (with_error(far) for far in (plain.far[0], plain.far[-1], fresh.far[-1]))
    told = (
        f"{counts[0]} steps end {first} % of full scale off the run of {aim.steps}, {counts[-1]} "
        f"steps {last} % (with fresh noise {other} %; another noise: {aim.usual:.1f} %)"
    )
    if plain.right is None:
        return told
    start = find_enough(plain.right, aim.right)
    share = f"{aim.steps} steps ({with_error(aim.right, 0)} % right of {len(aim.right)})"
    if start is None:
        return f"every shorter run has fewer pictures right than {share}; {told}"
    enough = f"{counts[start]} steps on ({with_error(plain.right[start], 0)} %)"
    return f"from {enough} the judge cannot tell a run from {share}; {told}"


if __name__ == "__main__":
    script.run(main)
