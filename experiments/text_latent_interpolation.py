"""Is there a picture between two seeds?

The noise of a seed A is led over to that of a seed B in even steps, and each point is drawn with
the same prompt. The straight way (lerp) shortens the noise, which is one vector for this: half way
it has √½ of its norm, and the model was never trained on a start so quiet. The way along the sphere
(slerp; Shoemake, SIGGRAPH 1985; so used in DDIM, arXiv 2010.02502) keeps the norm.

The strips show the first pair of noises. The curves are means over pairs, with 95 % intervals: what
part of its change a picture makes in its largest steps, and the norm of the noise and the contrast
of the picture (the standard deviation over its places), as a share of those at the ends. Pictures
switch in one step if it is larger than where each pair's steps are shuffled (permutation test,
p < 0.05); else they jump if fewer steps make 90 % of the change than of a stick broken at random.
The table counts pictures that are as asked.

The phantom places things as the noise says: a thing that stands elsewhere in B must get there, or
fade here and appear there. SD 1.x has softer scenes to lead through. The control: both ends of both
ways must be the pictures that the seeds give themselves, bit for bit.
"""

from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import interpolation as figures
from phantom.prompts import as_asked
from stable_diffusion_tf.arguments import check_seed
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import script
from xray.measure import contrast, distance, mean_of
from xray.methods import interpolation
from xray.methods.drawing import decode, draw
from xray.methods.interpolation import WAYS
from xray.options import Batch, Prompt, check_range
from xray.report import Control, Report


@dataclass(frozen=True)
class Options(Batch):
    prompt: Prompt = "a rabbit on a purple background"
    """what to draw."""
    other: int = 1
    """the seed of the noises B, where the ways end."""
    points: int = 9
    """of the way, both ends included, 3 to 33."""
    steps: int = 10

    def check(self) -> None:
        super().check()
        check_range("points", self.points, 3, 33, 9)
        check_seed(self.other)
        if self.seed == self.other:
            raise UsageError(f"both seeds are {self.seed}; try --other {self.seed + 1}")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    context, uncond = np.split(sd.encode_text([options.prompt, ""]), 2)
    run = {"uncond": uncond, "steps": options.steps, "guidance": options.guidance}
    a, b = (sd.draw_noise(seed, options.pictures) for seed in (options.seed, options.other))
    shares, pairs = interpolation.shares_of(options.points), [*zip(a, b, strict=True)]
    noise = {
        name: np.stack([interpolation.walk(*pair, way, shares) for pair in pairs], 1)
        for name, way in WAYS.items()
    }  # (points, b, h, w, c)
    same = np.repeat(context, options.points, 0)
    latents = {
        way: np.stack([draw(sd, same, some[:, i], run) for i in range(len(a))], 1)
        for way, some in noise.items()
    }
    ends = draw(sd, same, np.stack([a[0]] * (options.points - 1) + [b[0]]), run)[[0, -1]]
    images = {way: np.stack([decode(sd, p) for p in some]) for way, some in latents.items()}
    along = {way: interpolation.measure_along(some) for way, some in images.items()}
    kept = {f"noise's norm, {way}": to_ends(norms(x)) for way, x in noise.items()}
    kept |= {f"picture's contrast, {way}": to_ends(contrast(x)) for way, x in images.items()}
    table = [
        {"way": way, "share of B": round(share, 3)}
        | figures.estimates(along[way], i)
        | {n.split(",")[0]: mean_of(v[i]) for n, v in kept.items() if n.endswith(f" {way}")}
        | as_asked(to_uint8(images[way][i]), options.prompt)
        for way in WAYS
        for i, share in enumerate(shares)
    ]
    finding = figures.tell_steps("Between two seeds", along)
    met = all(np.array_equal(some[[0, -1], 0], ends) for some in latents.values())
    at_ends = figures.Panel("share of that at the ends", kept, 1, "as at the ends")
    strips = {way: some[:, 0] for way, some in images.items()}
    heading = f"“{options.prompt}”, A: seed {options.seed}, B: seed {options.other}\n{finding}"
    return Report(
        finding,
        Control("the ends are the seeds' own pictures, bit for bit", met, met, figures.WRONG),
        numbers=figures.steps_of(along),
        table=table,
        figure=figures.way_sheet(strips, shares, [figures.jumps_panel(along), at_ends], heading),
        tensors={f"{way}.noise": some for way, some in noise.items()}
        | {f"{way}.latents": some for way, some in latents.items()},
    )


def norms(noise: np.ndarray) -> np.ndarray:  # (points, b, h, w, c) → (points, b)
    return np.stack([distance(some, 0) for some in noise])


def to_ends(values: np.ndarray) -> np.ndarray:
    """As a share of the mean of both ends, (points, b)."""
    return values / values[[0, -1]].mean(0)


if __name__ == "__main__":
    script.run_experiment(main, Options)
