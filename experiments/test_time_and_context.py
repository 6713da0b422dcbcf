"""What do the timestep and the prompt do to a run?

In the UNet the timestep comes in at every residual block, one vector, and the prompt at every
cross-attention, as keys and values. Runs are made in which other ones are put there, from the same
noises: another prompt, or the timestep of a noisier or cleaner step, everywhere, in one block
alone, or in one step alone (activation patching of what the UNet is conditioned on).

The map tells how far the latent moves, the mean over the noises in per cent of the distance
between two seeds. One step alone may move it farther than all together, as the others then pull it
back. The pictures are of one noise, with how many of all show what each prompt asks for.

In Stable Diffusion the prompt matters in the first ten of 25 steps (arXiv 2404.02747). Up block 0,
after the middle, reads no prompt, there and in the phantom: another one put there moves nothing.
The control puts in its own timestep and prompt, by hand: only rounding may move the latent.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import stable_diffusion_tf
from experiments.figures import time_and_context as figures
from phantom.prompts import as_asked
from stable_diffusion_tf.errors import UsageError
from xray import rounding, script
from xray.measure import mean_of
from xray.methods import conditioning
from xray.methods.conditioning import KINDS, Swap
from xray.methods.drawing import to_pictures
from xray.options import Batch, Other, Prompt, check_range
from xray.report import Control, Report

ROWS = 16  # runs in a batch, at most
SHOWN = Swap("words"), Swap("words", None, 0), Swap("noisier"), Swap("cleaner")
WRONG = "its own timestep and prompt, put in by hand, moved the latent"


@dataclass(frozen=True)
class Options(Batch):
    guided: ClassVar[bool] = True

    prompt: Prompt = "a rabbit on a blue background"
    """what to draw."""
    other: Other = "a car on a yellow background"
    """what the UNet is conditioned on instead."""
    shift: int = 1
    """by how many steps the timestep is wrong, 1 to 100."""
    blocks: str = "*"
    """glob of the blocks in which it is swapped, as mid_block; by default in each."""
    steps: int = 6
    guidance: float = 4.0

    def check(self) -> None:
        super().check()
        check_range("shift", self.shift, 1, 100, 1)
        check_range("pictures", self.pictures, 2, ROWS, 8)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    prompts, steps = (options.prompt, options.other), options.steps
    context, strange, uncond = sd.encode_text([*prompts, ""])[:, None]
    if np.array_equal(context, strange):
        raise UsageError("both prompts are the same to the model; try 'a cat' and 'a dog'")
    run = {"uncond": uncond, "steps": steps, "guidance": options.guidance}
    batch = min(ROWS, 2 * options.pictures)
    noise, many = sd.draw_noise(options.seed, batch), np.repeat(context, batch, 0)
    *_, plain = sd.denoise(many, latent=noise, **run)
    again = rounding.redrawn(sd, many, noise, run)
    times = conditioning.shifted_times(sd.timesteps(steps), options.shift, len(sd.alphas) - 1)
    both = np.concatenate([context, strange])
    known = conditioning.read_conditions(sd, both, uncond, noise, times)
    swaps = conditioning.list_swaps(conditioning.find_blocks(sd, options.blocks), steps)
    jobs = [(Swap("itself"), 0)]
    jobs += [(swap, i) for swap in swaps for i in range(options.pictures)]
    itself, *latents = conditioning.swap_all(sd, jobs, noise, context, known, run)
    latents, ends = np.reshape(latents, (len(swaps), -1, *itself.shape)), plain.x_prev
    far = conditioning.apart(latents, ends[: options.pictures]) / conditioning.between(ends)
    images = to_pictures(sd, np.concatenate([ends[None, : options.pictures], latents]))
    table = [
        {"swapped": KINDS[swap.kind], "where": swap.where, "moved": mean_of(100 * moved, "%")}
        | {f"as {who}": count for who, prompt in zip("AB", prompts, strict=True)
           for count in as_asked(some, prompt).values()}
        for swap, moved, some in zip(swaps, far, images[1:], strict=True)
    ]  # fmt: skip
    held, finding = rounding.hold(itself, ends[0], [ends, again]), find(table)
    rows = [0, *(1 + swaps.index(swap) for swap in SHOWN)]
    heading = f"A: “{options.prompt}”, B: “{options.other}”\n{finding}"
    told = [None, *(table[i - 1] for i in rows[1:])]
    return Report(
        finding,
        Control("its own timestep and prompt, by hand", str(held), held.passed, WRONG),
        numbers={f"{row['swapped']}, {row['where']}": row["moved"] for row in table},
        table=table,
        figure=figures.swap_sheet(images[rows, 0], told, table, heading),
        tensors={"plain": ends, "latents": latents, "pictures": images},
    )


def find(table: list[dict[str, Any]]) -> str:
    """In which step alone the other prompt moves the latent most."""
    rows = [row for row in table if row["swapped"] == KINDS["words"] and "step" in row["where"]]
    most = max(rows, key=lambda row: row["moved"].value)
    where = f"in {most['where']} of {len(rows)} alone"
    return f"Another prompt {where} moves the latent {most['moved']} as far as another seed would."


if __name__ == "__main__":
    script.run_experiment(main, Options)
