"""Is there a direction in the UNet that means something?

Two prompts that differ in a word are drawn from the same noises. In each step the features of a
block are averaged over positions and noises; the direction (steering vector) is what the second
prompt has more. A multiple of it is added to the block's features, in the prompt's half, while the
first prompt is drawn from other noises, and another prompt. How far that goes is a share of the way
to where the other word would have ended.

Pictures in a row are of one noise; the last is what the word itself makes. A direction that means
something climbs, for another prompt as well; the shuffled one, its numbers in other channels with
random signs, stays near zero.

In a diffusion model of faces, directions at the mid block (the h-space) are linear in their scale
and carry over to other pictures (arXiv 2210.10960). Faces stand in the middle; a thing of the
phantom stands anywhere, and the direction is added everywhere; so the block is where it goes
farthest at scale 1. The control is scale 0, which must leave the plain picture but for rounding.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import stable_diffusion_tf
from experiments.figures import h_space as figures
from stable_diffusion_tf.errors import UsageError
from xray import script
from xray.measure import Estimate, mean_of
from xray.methods import steering
from xray.methods.drawing import to_pictures
from xray.options import Batch, Other, Prompt, check_rising
from xray.report import Control, Report

ROWS = ("the prompt", "another prompt", "shuffled direction", "shuffled, another prompt")
WRONG = "a direction times zero changed the picture"
STRAIGHT = 0.9  # R² of a straight line


@dataclass(frozen=True)
class Options(Batch):
    guided: ClassVar[bool] = True

    prompt: Prompt = "a rabbit on a blue background"
    """what to draw; it holds the first word of the change."""
    other: Other = "a car on a blue background"
    """another prompt with that word, to see whether the direction carries over."""
    change: tuple[str, str] = ("blue", "yellow")
    """the word to leave, and the one to go to."""
    place: str | None = None
    """address of the features, such as unet.mid_block; by default where the direction does most."""
    scales: tuple[float, ...] = (-1.0, 0.0, 1.0, 1.5, 2.0)
    """multiples of the direction, rising, 0 and 1 among them."""
    steps: int = 8
    guidance: float = 4.0

    def check(self) -> None:
        super().check()
        for prompt in (self.prompt, self.other):
            if (word := self.change[0]) not in prompt.split():
                raise UsageError(f"{prompt!r} has no word {word!r}; name one of it with --change")
        if not {0, 1} <= {*self.scales}:
            raise UsageError("scales have 0 and 1 among them; try --scales 0 1 2")
        check_rising("scales", self.scales, 3, "0 1 2")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    prompts, scales = [options.prompt, options.other], options.scales
    prompts += [prompt.replace(*options.change) for prompt in prompts]
    contexts, (uncond,) = np.split(sd.encode_text([*prompts, ""]), [4])
    if np.array_equal(contexts[0], contexts[2]):
        raise UsageError("the model reads both words alike; try --change blue yellow")
    run = {"uncond": uncond[None], "steps": options.steps, "guidance": options.guidance}
    noise = sd.draw_noise(options.seed, 3 * options.pictures)
    sd.denoise(contexts[:1], latent=noise, **run)  # not begun: it looks
    places = steering.find_places(sd, options.place)
    seen = steering.steer_all(sd, contexts, noise, places, options.place, scales, run)
    start, goal = np.split(seen.plain[[0, 1, 0, 1, 2, 3, 2, 3]], 2)
    shares = 100 * steering.share_of_way(seen.latents, start, goal)  # (scales, 4, pictures)
    table = [
        {"scale": f"{scale:g}"}
        | {name: mean_of(row, "%") for name, row in zip(ROWS, some, strict=True)}
        for scale, some in zip(scales, shares, strict=True)
    ]
    zero, one = scales.index(0), scales.index(1)
    straight = mean_of(steering.fit_lines(scales, shares[:, 0])[1])
    finding = find(table[one], mean_of(shares[one, 0] - shares[one, 2], "%"), straight, seen.place)
    reach = {place: mean_of(100 * share, "%") for place, share in seen.reach.items()}
    shown = np.concatenate([seen.latents[:, :3, 0], seen.plain[None, [2, 3, 2], 0]])
    shown = to_pictures(sd, shown), table, reach, seen.place, options.change
    held = steering.hold_still(sd, contexts, noise, seen.latents[zero], run)
    return Report(
        finding,
        Control("scale 0 beside the plain pictures", str(held), held.passed, WRONG),
        numbers={"at scale 1": table[one][ROWS[0]], "R² of a line": straight} | reach,
        table=table,
        figure=figures.climb_sheet(*shown, finding),
        tensors={name: getattr(seen, name) for name in ("direction", "latents", "plain")},
    )


def find(row: dict[str, Estimate], more: Estimate, r2: Estimate, place: str) -> str:
    """How far the direction goes at scale 1, whether more than a shuffled one, and how straight."""
    goes = f"{place.removeprefix('unet.')} moves pictures {row[ROWS[0]]} of the word's way"
    line = f"{'in' if r2.low >= STRAIGHT else 'not in'} a straight line"
    line += f"; shuffled, {row[ROWS[2]].short}"
    return f"A direction at {goes}, {line if more.clears(0) else 'no more than a shuffled one'}."


if __name__ == "__main__":
    script.run_experiment(main, Options)
