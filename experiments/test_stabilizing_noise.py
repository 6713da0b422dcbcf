"""What does the noise do that sampling adds back?

A step of DDPM takes the predicted noise out of x_t and adds sampling noise σ_t z, so that x_t keeps
the variance that the schedule gives it (arXiv 2006.11239, eq. 6–7). Here σ_t z is left out, halved,
or made half as large again. DDIM has none either at η = 0, but takes less of the predicted noise
out to make up for it (arXiv 2010.02502, eq. 12); at η = 1 it is DDPM. All rules start from the same
noises and add the same z, in 50 steps, without guidance, which moves the variance too.

Left: what each rule draws from the same noises. Right: the variance of x_t on the way, beside that
of the schedule for the x_0 at which DDPM itself ends. The table adds detail, the mean difference of
neighbouring pixels (small where blurred, large where noisy), and how many pictures are as asked.

The paper's thousand steps add a little noise a thousand times; of 50, each adds about twenty times
its variance. Without it x_t is soon little more than √ᾱ·x̂0, with less noise around it than there
ever was in training: pictures collapse and blur. The phantom's scenes are flat, so that there is
less to lose. The control takes the first steps again: DDPM called plainly must give the bits of
factor 1, and another z must move just the rules that add some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import stable_diffusion_tf
from experiments.figures import stabilizing_noise as figures
from experiments.figures.stabilizing_noise import Curves
from phantom.prompts import as_asked
from stable_diffusion_tf import scheduler
from stable_diffusion_tf.images import to_uint8
from xray import script
from xray.measure import detail, mean_of
from xray.methods.ancestral import ancestral, implicit, walk
from xray.methods.drawing import decode
from xray.options import EXAMPLE, Batch, Prompt, check_range
from xray.report import Control, Report

CHECKED = 4  # steps that the control runs again
RULES = {
    "DDPM, noise × 0": ancestral(0.0),
    "DDPM, noise × 0.5": ancestral(0.5),
    "DDPM, noise × 1": ancestral(1.0),
    "DDPM, noise × 1.5": ancestral(1.5),
    "DDIM, η = 0.5": implicit(0.5),
    "DDIM, η = 0": implicit(0.0),
}
NONE, PLAIN = 0, 2  # rules: without sampling noise, as it should be
QUIET = [0, 5]  # those that add none
WRONG = "noise × 1 is not what plain DDPM gives, or another z moves the wrong rules"


@dataclass(frozen=True)
class Options(Batch):
    guided: ClassVar[bool] = True

    prompt: Prompt = EXAMPLE
    """what to draw."""
    steps: int = 50
    pictures: int = 16

    def check(self) -> None:
        super().check()
        check_range("steps", self.steps, CHECKED, 1000, 50)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    context, seed = sd.encode_text(options.prompt), options.seed
    noise, times = sd.draw_noise(seed, options.pictures), sd.timesteps(options.steps)
    down = [*zip(times.tolist(), [*times[1:].tolist(), -1], strict=True)]
    rules, first = [*RULES.values()], down[:CHECKED]
    x = walk(sd, context, noise, rules, down, seed)  # (1 + steps, rules, pictures, h, w, c)
    plain = walk(sd, context, noise, [scheduler.ddpm_step] * len(rules), first, seed)
    other = walk(sd, context, noise, rules, first, seed + 1)
    images = np.stack([decode(sd, latents) for latents in x[-1]])
    alpha = sd.alphas[times]
    due = 1 - alpha + alpha * x[-1, PLAIN].var()  # what the variance should be, (steps,)
    share = x[:-1].var(axis=(3, 4, 5)) / due[:, None, None]  # of it, (steps, rules, pictures)
    table = [
        {"rule": name, "least variance": mean_of(100 * share[:, i].min(0), "%")}
        | {"greatest variance": mean_of(100 * share[:, i].max(0), "%")}
        | {"detail": mean_of(detail(images[i]), "%")}
        | as_asked(to_uint8(images[i]), options.prompt)
        for i, name in enumerate(RULES)
    ]
    same = np.array_equal(x[: CHECKED + 1, PLAIN], plain[:, PLAIN])
    moved = np.abs(x[: CHECKED + 1] - other).max(axis=(0, 2, 3, 4, 5))
    less = mean_of(detail(images[PLAIN]) - detail(images[NONE]), "%")
    finding = find(table, less.clears(0))
    still = [*np.flatnonzero(moved == 0)] == QUIET
    outcome = f"{'the same bits' if same else 'others'}; {np.count_nonzero(moved)} of {len(moved)}"
    curves = Curves(times, x[:-1].var(axis=(2, 3, 4, 5)).T, due)
    return Report(
        finding,
        Control("plain DDPM; rules that another z moves", outcome, same and still, WRONG),
        table=table,
        figure=figures.noise_sheet([*RULES], images, curves, finding),
        tensors={"x": x, "pictures": images},
    )


def find(table: Sequence[Mapping[str, Any]], blurred: bool) -> str:
    """What leaving the sampling noise out does to the variance, and to detail."""
    none = table[NONE]["least variance"]
    ends = "and pictures lose detail" if blurred else "with no significant loss of detail"
    return f"Without its sampling noise DDPM's variance falls to {none} of the schedule's, {ends}."


if __name__ == "__main__":
    script.run_experiment(main, Options)
