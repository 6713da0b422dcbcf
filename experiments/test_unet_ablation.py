"""What does each block and each head of the UNet do?

Pictures are drawn from some noises as they are, and once more for each part of the UNet that is
ablated in all steps (zero ablation): what a residual block, an attention or a feed-forward layer
adds to its shortcut is set to zero, a skip connection brings zeros, a head of a cross-attention
attends to nothing.

Read the bars in order of execution: how far pictures move, on average over the noises, with 95 %
intervals, beside the distance between two noises. Under them, for the phantom, what is lost: how
many pictures no longer show the things that the prompt names, its background, their side, of those
that did before; and how many "flip": all marks are right, but the picture is more than half as far
as another noise's, so that nothing was lost but the run fell for another layout. The map shows the
heads. Ablating takes values out of their usual range: what breaks was needed here, but a part that
breaks nothing may be backed up by another (arXiv 2307.15771).

The control multiplies everything by one: it must be the untouched pictures but for rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import stable_diffusion_tf
from experiments.figures import unet_ablation as figures
from phantom.prompts import Marks, marks
from xray import rounding, script
from xray.measure import Estimate, distance, mean_of, share_of
from xray.methods.ablation import ablate, find_ablations
from xray.methods.drawing import draw, to_pictures
from xray.options import EXAMPLE, Batch, Prompt
from xray.report import Control, Report

FLIP = 0.5  # of the distance between two noises: a right picture that moved farther has flipped


@dataclass(frozen=True)
class Options(Batch):
    renamed: ClassVar = {"--batch": "--pictures"}

    prompt: Prompt = EXAMPLE
    """what to draw."""
    steps: int = 8
    guidance: float = 4.0
    places: str = "*"
    """glob of what is ablated, as unet.mid_block*; by default every block and every head."""


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    places, ablations = find_ablations(sd, options.places)
    context, uncond = np.split(sd.encode_text([options.prompt, ""]), 2)
    run = {"uncond": uncond, "steps": options.steps, "guidance": options.guidance}
    noise = sd.draw_noise(options.seed, options.pictures)
    contexts = np.repeat(context, len(noise), 0)
    plain = draw(sd, contexts, noise, run)
    again = rounding.redrawn(sd, contexts, noise, run)
    untouched, *latents = ablate(sd, places, [None, *ablations], context, noise, run)
    images = to_pictures(sd, np.stack([plain, *latents]))  # (1 + ablations, noises, H, W, 3)
    far = 100 / 255 * np.array([distance(some, images[0]) for some in images])  # % of full scale
    usual = 100 / 255 * distance(images[0], np.roll(images[0], 1, axis=0))
    judged = [marks(some, options.prompt) for some in images]
    table = [
        {"ablated": str(one), "moved": mean_of(moved, "%")}
        | damage(judged[0], mark, moved > FLIP * usual.mean())
        for one, moved, mark in zip(ablations, far[1:], judged[1:], strict=True)
    ]
    held, finding = rounding.hold(untouched, plain, [plain, again]), find(table)
    other = {"ablated": "nothing, but another noise", "moved": mean_of(usual, "%")}
    return Report(
        finding,
        Control("everything times one", str(held), held.passed, "it changed the pictures"),
        table=sorted([*table, other], key=lambda row: -row["moved"].value),
        figure=figures.ablation_sheet(ablations, table, other["moved"], images[:, 0], finding),
        tensors={"pictures": images},
    )


def damage(before: Marks | None, after: Marks | None, far: np.ndarray) -> dict[str, Estimate]:
    """Mark → how many pictures lost it, of those that had it; and how many flipped."""
    if before is None:
        return {}
    both = zip(Marks._fields, before, after, strict=True)
    lost = {f"{name} lost": ~now[had] for name, had, now in both if had is not None and had.any()}
    lost["flipped"] = after.right & far
    return {name: share_of(gone) for name, gone in lost.items()}


def find(table: Sequence[dict]) -> str:
    """What loses most things, or, where that cannot be told, moves pictures most."""
    what = "things lost" if "things lost" in table[0] else "moved"
    heads = [row for row in table if row["ablated"].startswith("head")]
    blocks = [row for row in table if row not in heads]
    worst, block = (max(some, key=lambda row: row[what].value) for some in (table, blocks or table))
    if what == "moved":
        return f"Without the {worst['ablated']}, pictures move most: {worst[what]} of full scale."
    lost = f"Without the {block['ablated']}, {block[what].of('pictures')} lose their things"
    if not heads:
        return f"{lost}."
    head = max(heads, key=lambda row: row[what].value)
    return f"{lost}; without {head['ablated']}, {head[what].short}."


if __name__ == "__main__":
    script.run_experiment(main, Options)
