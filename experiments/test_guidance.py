"""What does guidance do, and where does it begin to hurt?

At each step the model predicts the noise twice, without the prompt and with it, and the difference
of the two is amplified: ε = ε_uncond + s · (ε_cond − ε_uncond), classifier-free guidance (Ho &
Salimans, arXiv 2207.12598). The sizes of these over the steps are root mean squares, 1 for Gaussian
noise. Then the same noises are drawn into pictures at growing scales. Too much drives colours to
the ends of their range, where they are cut off: a pixel is saturated if one of its values is 0 or
255. Guidance hurts from the scale on at which, and at all above, a percent of pixels more is
saturated than without guidance: the whole interval of the paired difference lies beyond it.

Read the sheet from the pictures down. A small difference means that the prompt says little, and
that guidance has much to do. Whether pictures show what the prompt names can be told for the
phantom only, which is trained on flat colours and bears more guidance than a model of photographs.
The control has the same prompt on both sides: guidance must then change nothing but the rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import stable_diffusion_tf
from experiments.figures import guidance as figures
from phantom.prompts import as_asked
from stable_diffusion_tf.errors import UsageError
from xray import rounding, script
from xray.measure import mean_of, saturation
from xray.methods.drawing import draw, paint
from xray.options import EXAMPLE, Batch, Prompt, check_rising
from xray.report import Control, Report

MUCH = 1.0  # per cent of pixels, more than which is called saturation
WRONG = "guidance changed a picture with nothing to guide it"


@dataclass(frozen=True)
class Options(Batch):
    guided: ClassVar[bool] = True

    prompt: Prompt = EXAMPLE
    """what to draw."""
    scales: tuple[float, ...] = (1.0, 2.0, 4.0, 7.5, 12.0, 20.0, 40.0, 80.0)
    """of guidance, rising; the others are compared with the first."""

    def check(self) -> None:
        super().check()
        check_rising("scales", self.scales, 2)
        if self.scales[0] <= 0:
            raise UsageError(f"a scale of {self.scales[0]:g} is not above 0; try 1, which is none")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    context, uncond = np.split(sd.encode_text([options.prompt, ""]), 2)
    noise = sd.draw_noise(options.seed, options.pictures)
    runs = [{"steps": options.steps, "guidance": s} for s in (*options.scales, options.guidance)]
    for run in runs:
        sd.denoise(context, uncond, **run)  # not begun: bad input is told before the work
    steps = [*sd.denoise(context, uncond, latent=noise[:1], **runs.pop())]
    many = np.repeat(context, len(noise), 0)
    images = np.stack([paint(sd, many, noise, {"uncond": uncond} | run) for run in runs])
    ends = 100 * saturation(images)  # (scales, pictures)
    table = [
        {
            "guidance": f"{s:g}",
            "saturated": mean_of(share, "%"),
            "more": mean_of(share - ends[0], "%"),
        }
        | as_asked(some, options.prompt)
        for s, share, some in zip(options.scales, ends, images, strict=True)
    ]
    twins = np.concatenate([noise[:1], rounding.nudged(noise[:1])])
    alike = [draw(sd, many[:2], twins, {"uncond": context} | run) for run in runs]
    held, finding = rounding.hold_all(alike), find(table)
    sizes = sizes_of(steps, options.guidance)
    return Report(
        finding,
        Control("the same prompt on both sides, at every scale", str(held), held.passed, WRONG),
        table=table,
        figure=figures.guidance_sheet(images[:, 0], sizes, options.scales, table, finding),
        tensors={"pictures": images} | {name: size for name, size in sizes.items()},
    )


def sizes_of(steps: Sequence, guidance: float) -> dict[str, np.ndarray]:
    """What is predicted → its RMS at each step, (steps,)."""
    uncond, cond, guided = (
        np.stack([getattr(step, name) for step in steps])
        for name in ("eps_uncond", "eps_cond", "eps")
    )
    predicted = {"ε_uncond": uncond, "ε_cond": cond, "ε_cond − ε_uncond": cond - uncond}
    predicted[f"ε at guidance {guidance:g}"] = guided
    return {name: np.sqrt(np.mean(eps**2, axis=(1, 2, 3, 4))) for name, eps in predicted.items()}


def find(table: Sequence[dict]) -> str:
    """From which scale on all differences clear MUCH."""
    clear = [row["more"].clears(MUCH) for row in table]
    start = len(clear) - ([*clear[::-1], False]).index(False)
    row, least = table[min(start, len(table) - 1)], table[0]
    compared = f"{row['saturated']} of pixels, {least['saturated'].short} at {least['guidance']}."
    if start == len(table):
        return f"Guidance up to {row['guidance']} hardly saturates colours: {compared}"
    return f"Guidance from {row['guidance']} on saturates colours: {compared}"


if __name__ == "__main__":
    script.run_experiment(main, Options)
