"""Which block of the UNet knows the layout, and when?

Scenes of two things, whose masks are known, are noised to several timesteps, and a linear probe,
one weighted sum of a block's channels, is fitted on some scenes to tell things from background. The
map is its IoU with the masks of other scenes. A block can do no better than its grid lets it: that
bound stands behind its name. The first two rows are what a block must beat: the noisy latent, and
the position alone. Below, the masks that the best block's probe draws of one scene.

A second sheet shows a run: the features of each block by their first three principal components as
red, green and blue; the number is how much they are like the last step's (cosine, 1 is the same).
Of models of another world, whose masks nobody knows, this sheet is all.

In Stable Diffusion plug-and-play features find the layout in the middle of the decoder (arXiv
2211.12572), a linear probe the salient thing with a Dice of 0.85, an IoU of 0.74, while a picture
comes about (arXiv 2306.05720); our scenes are real ones under noise. The control is a probe of
shuffled masks, which may do no better than to call everything a thing; and looking must not change
the run's end.
"""

import re
import tempfile
from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import unet_features as figures
from phantom.lessons import LATENT, probe_scenes
from phantom.world import SIDE
from xray import script
from xray.measure import mean_of
from xray.methods import linear_probe
from xray.methods.drawing import to_pictures
from xray.options import EXAMPLE, Prompt, Sampling, check_range
from xray.report import Control, Report

TIMES = (980, 900, 800, 700, 600, 400, 200, 20)
BLOCKS = re.compile(r"unet\.(down_blocks\.\d+:0|mid_block|up_blocks\.\d+)")
SHOWN = 6  # steps of the run
ALIKE = 0.9  # cosine of what looks alike
SLACK = 0.05  # of IoU, by which a probe of shuffled masks may exceed chance
WRONG = "looking changed the picture, or a probe of shuffled masks finds the things"


@dataclass(frozen=True)
class Options(Sampling):
    prompt: Prompt = EXAMPLE
    """what to draw for the colours."""
    number: int = 64
    """how many scenes the probes are fitted on, 8 to 512; half as many score them."""

    def check(self) -> None:
        super().check()
        check_range("number", self.number, 8, 512, 64)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    run = {name: getattr(options, name) for name in ("steps", "guidance", "seed")}
    out = options.folder or tempfile.mkdtemp()
    film, held = linear_probe.film_features(sd, options.prompt, BLOCKS, out, run)
    blocks = [*filter(BLOCKS.fullmatch, film.names)]
    features = {figures.named(name): film.read(name)[:, -1] for name in blocks}  # the prompt's half
    alike = {block: linear_probe.likeness(steps) for block, steps in features.items()}
    first = {block: int(np.argmax(cosines >= ALIKE)) + 1 for block, cosines in alike.items()}
    early, what = min(first, key=first.get), f"a cosine of {ALIKE} with the last step's features"
    seen = f"The first to reach {what}: {early}, in step {first[early]} of {len(film)}."
    shown = np.unique(np.linspace(0, len(film) - 1, min(SHOWN, len(film))).round().astype(int))
    colours = {block: linear_probe.components(steps)[shown] for block, steps in features.items()}
    x0 = to_pictures(sd, film.read("x0", shown.tolist())[:, 0])
    looks = x0, colours, alike, shown, seen  # drawn last of all: a budget counts until then
    tensors = {f"{block}, colours": maps for block, maps in colours.items()}
    if sd.size != SIDE:  # its world is not the phantom's
        rows = [{"block": block, f"step of {what}": step} for block, step in first.items()]
        control = Control("the run when nobody looks", str(held), held.passed, WRONG)
        sheet = figures.colours_sheet(*looks)
        return Report(seen, control, None, rows, sheet, tensors, film=options.folder)
    scores = probe_scenes(sd, blocks, TIMES, options.number, options.seed)
    table = [
        {"features": figures.named(name)}
        | {f"t = {t}": mean_of(iou) for t, iou in zip(TIMES, ious, strict=True)}
        for name, ious in scores.things.items()
    ]
    more, finding = scores.above_chance(), find(scores)
    outcome = f"IoU {more} above chance; when nobody looks, the run's end {held}"
    passed = held.passed and more.value <= SLACK
    return Report(
        finding,
        Control("probes of shuffled masks", outcome, passed, WRONG),
        table=table,
        figure=figures.scores_sheet(scores, table, finding),
        tensors=tensors | {figures.named(name): iou for name, iou in scores.things.items()},
        pictures={"colours": figures.colours_sheet(*looks)},
        film=options.folder,
    )


def find(scores: linear_probe.Scores) -> str:
    """The best block at its best timestep, and whether it is better than the latent there."""
    found, latent = scores.things[scores.best], scores.things[LATENT]
    top = int(np.argmax(found.mean(1)))
    beyond = "beyond" if mean_of(found[top] - latent[top]).clears(0) else "not clearly beyond"
    where = f"on {figures.named(scores.best)} finds things with an IoU of {mean_of(found[top])}"
    rival = f"{beyond} one on the latent, {mean_of(latent[top]).short}"
    return f"A linear probe {where} at t = {scores.times[top]}, {rival}."


if __name__ == "__main__":
    script.run_experiment(main, Options)
