"""Is there a picture between two prompts?

The vectors of a prompt A are led over to those of a prompt B in even steps, each of the 77 tokens
by itself: in a straight line (lerp), which cuts through the sphere that the vectors lie near (the
text encoder ends in a normalisation), or along the sphere (slerp; Shoemake, SIGGRAPH 1985). Each
point is drawn from the same noise.

The strips show one noise. The curves are means over the noises, with 95 % intervals: how far the
pictures are from A's and from B's, and how far each is from the one before it; if pictures changed
as evenly as the vectors do, each step would be on the dashed line. Pictures switch in one step if
it is larger than where each noise's steps are shuffled (permutation test, p < 0.05); else they jump
if fewer steps make 90 % of the change than of a stick broken at random. The table counts pictures
that are as asked for A, for B, or for neither (the phantom's only).

The phantom has seen a few dozen things and nothing between them; SD 1.x, whose words have many more
neighbours, may have more to show there. The control: both ends of both ways must be the pictures
that A and B give themselves, bit for bit.
"""

from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import interpolation as figures
from phantom.prompts import shown
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import script
from xray.measure import Estimate, share_of
from xray.methods import interpolation
from xray.methods.drawing import decode, draw
from xray.methods.interpolation import WAYS
from xray.options import Batch, Other, Prompt, check_range
from xray.report import Control, Report


@dataclass(frozen=True)
class Options(Batch):
    prompt: Prompt = "a rabbit on a purple background"
    """A, where the way begins."""
    other: Other = "a burger on a green background"
    """B, where it ends."""
    points: int = 9
    """of the way, both ends included, 3 to 33."""
    steps: int = 10

    def check(self) -> None:
        super().check()
        check_range("points", self.points, 3, 33, 9)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    a, b, uncond = sd.encode_text([options.prompt, options.other, ""])
    if np.array_equal(a, b):
        raise UsageError("both prompts are the same to the model; try 'a cat' and 'a dog'")
    points, shares = options.points, interpolation.shares_of(options.points)
    contexts = {name: interpolation.walk_tokens(a, b, way, shares) for name, way in WAYS.items()}
    run = {"uncond": uncond[None], "steps": options.steps, "guidance": options.guidance}
    noise = sd.draw_noise(options.seed, options.pictures)
    noise = np.repeat(noise[:, None], points, 1)  # (b, points, h, w, c)
    latents = {
        way: np.stack([draw(sd, some, one, run) for one in noise], 1)  # (points, b, h, w, c)
        for way, some in contexts.items()
    }
    ends = draw(sd, np.stack([a] * (points - 1) + [b]), noise[0], run)[[0, -1]]
    images = {way: np.stack([decode(sd, p) for p in some]) for way, some in latents.items()}
    along = {way: interpolation.measure_along(some) for way, some in images.items()}
    table = [
        {"way": way, "share of B": round(share, 3)}
        | figures.estimates(along[way], i)
        | judge(images[way][i], options.prompt, options.other)
        for way in WAYS
        for i, share in enumerate(shares)
    ]
    finding = figures.tell_steps("Between two prompts", along)
    same = all(np.array_equal(some[[0, -1], 0], ends) for some in latents.values())
    strips = {way: some[:, 0] for way, some in images.items()}
    heading = f"A: “{options.prompt}”, B: “{options.other}”\n{finding}"
    return Report(
        finding,
        Control("the ends are A's and B's own pictures, bit for bit", same, same, figures.WRONG),
        numbers=figures.steps_of(along),
        table=table,
        figure=figures.way_sheet(strips, shares, figures.distance_panels(along), heading),
        tensors={f"{way}.contexts": some for way, some in contexts.items()}
        | {f"{way}.latents": some for way, some in latents.items()},
    )


def judge(images: np.ndarray, prompt: str, other: str) -> dict[str, Estimate]:
    """How many pictures (b, H, W, 3) in [-1, 1] are as asked for A, B or neither; {} if unknown."""
    both = [shown(to_uint8(images), wanted) for wanted in (prompt, other)]
    if any(hits is None for hits in both):
        return {}
    a, b = both
    return {"A": share_of(a), "B": share_of(b), "neither": share_of(~(a | b))}


if __name__ == "__main__":
    script.run_experiment(main, Options)
