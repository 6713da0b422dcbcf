"""What does the noise do that sampling adds back?

A step of DDPM takes the predicted noise out of x and adds fresh noise, so that x keeps the variance
that the schedule gives it (arXiv 2006.11239, eq. 6–7). Here that fresh noise is left out, halved,
or made half as large again. DDIM has none either at η = 0, but takes less of the predicted noise
out to make up for it (arXiv 2010.02502, eq. 12); at η = 1 it is DDPM. All rules start from the same
noises and add the same fresh noise, in 50 steps, without guidance, which moves the variance too.

Left: what each rule draws from the same noises. Above: the variance of x on the way, beside that of
the schedule for the x0 at which DDPM itself ends. Below, with standard errors over the pictures:
detail, the mean difference of neighbouring pixels (small where blurred, large where noisy), and, on
the phantom, the share that the judge finds right.

The paper's thousand steps add a little noise a thousand times; of 50, each adds about twenty times
its variance. Without it x is soon little more than √ᾱ·x0, the model's own guess, with less noise
around it than there ever was in training: the seed of this project saw pictures collapse and blur.
The phantom's scenes are flat and few, so that there is less to lose. The controls take the first
steps again: DDPM called plainly must give the bits of factor 1, and other fresh noise must move
just the rules that add some.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import stabilizing_noise as figures
from experiments.figures.stabilizing_noise import Curves
from phantom.prompts import shown
from stable_diffusion_tf import scheduler
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import measure, script
from xray.measure.telling import with_error
from xray.methods.ancestral import ancestral, implicit, walk
from xray.methods.drawing import decode

EXAMPLE = "a rabbit left of a strawberry on a purple background"
CHECKED = 4  # steps that the controls run again

RULES = {
    "DDPM, noise × 0": ancestral(0.0),
    "DDPM, noise × 0.5": ancestral(0.5),
    "DDPM, noise × 1": ancestral(1.0),
    "DDPM, noise × 1.5": ancestral(1.5),
    "DDIM, η = 0.5": implicit(0.5),
    "DDIM, η = 0": implicit(0.0),
}
NONE, PLAIN, MORE = 0, 2, 3  # rules: without fresh noise, as it should be, too much
QUIET = (0, 5)  # those that add none
DETAIL, RIGHT = "detail", "judged right"


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    pictures: int = 8,
    steps: int = 50,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """The same noises drawn with none, some, all and too much of the fresh noise.

    Args:
        prompt: what to draw.
        pictures: drawn by each rule, 2 to 64.
        steps: steps from noise to picture, 4 to 1000.
        seed: draws the first noise and the fresh noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("pictures", pictures, 2, 64, 8)
    script.check_range("steps", steps, CHECKED, 1000, 50)
    script.check_seed(seed)
    sd = script.load_model(weights)
    if sd.unet_config.time_cond_proj_dim:
        raise UsageError(f"{weights} has a rule of its own; name weights that DDPM can sample")
    context, noise = sd.encode_text(prompt), sd.draw_noise(seed, pictures)
    times = sd.timesteps(steps)
    down = [*zip(times.tolist(), [*times[1:].tolist(), -1], strict=True)]
    folder = script.make_folder(out, "test_stabilizing_noise", prompt)
    with script.saving_into(folder):
        rules = [*RULES.values()]
        x = walk(sd, context, noise, rules, down, seed)
        first = down[:CHECKED]
        plain = walk(sd, context, noise, [scheduler.ddpm_step] * len(rules), first, seed)
        other = walk(sd, context, noise, rules, first, seed + 1)
        images = np.stack([decode(sd, latents) for latents in x[-1]])
        variances, schedule = x.var(axis=(2, 3, 4, 5)), due(x[-1, PLAIN], times, sd.alphas)
        bars, far = measure_pictures(images, prompt), furthest(variances[:-1], schedule)
        title = finding(far, bars)
        curves = Curves(times, variances[:-1].T, schedule)
        sheet = figures.noise_sheet([*RULES], images, curves, bars, f"“{prompt}”: {title}")
        script.save_figure(sheet, folder / "noise.png")
        save_file({"x": x, "pictures": images}, folder / "runs.safetensors")
    tell(far, variances[-1], bars)
    same = np.array_equal(x[: CHECKED + 1, PLAIN], plain[:, PLAIN])
    moved = np.abs(x[: CHECKED + 1] - other).max(axis=(0, 2, 3, 4, 5))
    script.conclude(
        title,
        f"plain DDPM gives the bits of noise × 1: {'yes' if same else 'no'}; "
        f"other fresh noise moves {np.count_nonzero(moved)} of {len(moved)} rules",
        picture=folder / "noise.png",
        tensors=folder / "runs.safetensors",
    )
    check_control(same, moved)


def check_control(same: bool, moved: np.ndarray) -> None:
    """Raises SystemExit unless plain DDPM is `same`, and other fresh noise has `moved` just the
    rules that add some; moved: (rules,)."""
    if not same:
        raise SystemExit("the control failed: noise × 1 is not what plain DDPM gives")
    if [*np.flatnonzero(moved == 0)] != [*QUIET]:
        raise SystemExit("the control failed: other fresh noise moves the wrong rules")


# --- measuring ---------------------------------------------------------------------------------


def due(x0: np.ndarray, times: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """The variance that x should have at timesteps, (steps,), if x0 (b, h, w, c) is its end."""
    alpha = alphas[times]
    return 1 - alpha + alpha * x0.var()


def measure_pictures(images: np.ndarray, prompt: str) -> dict[str, np.ndarray]:
    """What is measured → (rules, pictures), per cent; images (rules, pictures, H, W, 3)."""
    bars = {DETAIL: measure.detail(images)}
    verdicts = [shown(to_uint8(some), prompt) for some in images]
    return bars if verdicts[0] is None else bars | {RIGHT: 100.0 * np.stack(verdicts)}


def furthest(variances: np.ndarray, schedule: np.ndarray) -> np.ndarray:
    """The variance of each rule where it is furthest from the schedule, as a multiple of what it
    should be there: (steps, rules), (steps,) → (rules,)."""
    share = variances / schedule[:, None]
    worst = np.abs(np.log(share)).argmax(axis=0)
    return share[worst, np.arange(share.shape[1])]


# --- telling -----------------------------------------------------------------------------------


def tell(far: np.ndarray, ends: np.ndarray, bars: Mapping[str, np.ndarray]) -> None:
    print(f"{'rule':18}  furthest var(x)  at the end" + "".join(f"{name:>15} %" for name in bars))
    for i, rule in enumerate(RULES):
        row = "".join(f"{with_error(values[i]):>17}" for values in bars.values())
        print(f"{rule:18} {far[i]:9.2f} × due {ends[i]:11.2f}{row}")


def finding(far: np.ndarray, bars: Mapping[str, np.ndarray]) -> str:
    which = (NONE, PLAIN, MORE)
    variances = ", ".join(f"{far[i]:.2f}" for i in which)
    blurred = measure.exceeds(bars[DETAIL][PLAIN], bars[DETAIL][NONE])
    ends = (f"{name} {', '.join(with_error(bars[name][i]) for i in which)} %" for name in bars)
    return (
        f"with its fresh noise × 0, × 1, × 1.5 DDPM's var(x) goes to {variances} of what is due; "
        f"without it the pictures {'are' if blurred else 'are not'} blurred: {'; '.join(ends)}"
    )


if __name__ == "__main__":
    script.run(main)
