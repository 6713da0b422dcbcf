"""Can a picture be walked back to its noise, and forth again?

Without sampling noise DDIM's steps are a path that can be walked the other way: from a picture's
latent, step by step, to a noise that the model would draw it from (Song et al., arXiv 2010.02502,
section 4.3 and eq. 13). Each step back guesses the noise at its far end by that at its near end;
what that costs is seen by drawing from the noise found, with the same prompt, steps and guidance.

The curves are the PSNR of what comes back, between what encoding leaves and the control. More steps
are smaller guesses, guidance exaggerates each. The model was not trained on noise whose neighbours
correlate, as they do where the picture is flat. Intervals are over pictures.

At guidance 7.5 SD 1.x gives a photograph back with about 14 dB (arXiv 2211.09794, not checked at
its source); the phantom's are mostly flat colour, which the words name. The control: fresh noise
must give back 3 dB less, and the same walk twice must end in the same noise, bit for bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import stable_diffusion_tf
from experiments.figures import ddim_inversion as figures
from phantom.prompts import known_things
from phantom.world import new_scenes
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_model
from xray import script
from xray.measure import mean_of, psnr
from xray.methods.ddim_inversion import neighbour_correlation, there_and_back, walk_all
from xray.methods.drawing import encode
from xray.options import Picture, Seeded, check_range, check_rising
from xray.pictures import read_image
from xray.report import Control, Report

CORRELATE = "neighbours correlate"
FAR = 3.0  # dB; fresh noise must give back so much less
WRONG = "fresh noise gives the picture back nearly as well, or one walk has two ends"


@dataclass(frozen=True)
class Options(Seeded):
    guided: ClassVar[bool] = True

    picture: Picture = None
    """cropped to its middle square; by default scenes of the phantom's world."""
    prompt: str = ""
    """what the picture shows."""
    steps: tuple[int, ...] = (5, 10, 25)
    """of the walks, rising, each from 1 to 1000."""
    guidance: tuple[float, ...] = (1.0, 3.0, 7.5)
    """scales of classifier-free guidance, rising, two or more; 1 is none."""
    number: int = 16
    """how many scenes, 1 to 64."""

    def check(self) -> None:
        super().check()
        if bool(self.picture) != bool(self.prompt.strip()):
            raise UsageError("a picture needs --prompt, what it shows; name both or none")
        check_rising("steps", self.steps, 1)
        check_rising("guidance", self.guidance, 2)
        check_range("number", self.number, 1, 64, 16)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    images, prompts = new_scenes(options.seed, options.number, sd.size, known_things(sd))
    if options.picture:
        images, prompts = read_image(options.picture, sd.size)[None], [options.prompt]
    images = to_model(images, 1)
    contexts, uncond = np.split(sd.encode_text([*prompts, ""]), [-1])
    fresh = sd.draw_noise(options.seed, *images.shape[:3])
    ends = walk_all(sd, images, contexts, uncond, options.guidance, options.steps, fresh)
    run = {"uncond": uncond, "steps": options.steps[0], "guidance": options.guidance[0]}
    again, _ = there_and_back(sd, contexts, encode(sd, images), run)
    same, last = np.array_equal(again, next(iter(ends.values()))[0]), options.steps[-1]
    names = dict.fromkeys(name for name, _ in ends)
    table = [row_of(name, images, {n: ends[x, n] for x, n in ends if x == name}) for name in names]
    got = {row["noise"]: row[f"{last} steps"] for row in table}
    mild, *_, strong, _, _ = got
    rest = f"at {strong} {got[strong].short}, from fresh noise {got['fresh noise'].short}."
    finding = f"Inverted and drawn again at {mild}, a picture returns with {got[mild]}; {rest}"
    back, drawn = (psnr(images, ends[name, last][1]) for name in (mild, "fresh noise"))
    less = mean_of(back - drawn, "dB")
    outcome = f"{less} less; {'the same bits' if same else 'two noises'}"
    return Report(
        finding,
        Control(
            "fresh noise gives back; one walk twice", outcome, same and less.value > FAR, WRONG
        ),
        table=table,
        figure=figures.inversion_sheet(images, ends, (mild, strong), last, table, finding),
        tensors={"images": images}
        | {f"{name}.noise": ends[name, last][0] for name in [*got][:-1]}
        | {f"{name}.picture": ends[name, last][1] for name in got},
    )


def row_of(name: str, images: np.ndarray, ends: Mapping[int, tuple]) -> dict[str, Any]:
    """Steps → the noise that was found and the picture drawn from it, as a row of the table."""
    row = {"noise": name}
    for steps, (noise, drawn) in ends.items():  # noqa: B007  the last one's is used below
        row[f"{steps} steps"] = mean_of(psnr(images, drawn), "dB")
    return row if noise is None else row | {CORRELATE: mean_of(neighbour_correlation(noise))}


if __name__ == "__main__":
    script.run_experiment(main, Options)
