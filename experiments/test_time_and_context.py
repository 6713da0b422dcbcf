"""What do the time and the words do to the features?

In the UNet the timestep comes in at every residual block, one vector, and the words at every
cross-attention, as keys and values. First one call is made for noisy latents of a run: with its own
time and words, with the words of another prompt, and as if it were a step noisier or cleaner. In
the lower panels every dot is a channel of a block of the decoder: the scale and the offset that
bring its features from the first to the other. What they leave unexplained has changed from cell to
cell. Then runs are made in which others are heard: everywhere, in one block alone, or in one step
alone. The maps tell how far the latent moves, in per cent of the distance between two seeds; the
pictures are of one seed.

A residual block adds the time's vector to all cells alike, before a norm and a nonlinearity, so the
time should shift and scale whole channels; words reach each cell by as much as it attends to them.
In Stable Diffusion the words matter in the first ten of 25 steps (arXiv 2404.02747); here, too, the
first step alone moves most. The phantom's 4×4 level (down block 2, mid block, up block 0) all but
died in training: what is heard there moves next to nothing. The control hears its own time and
words, put in by hand: only rounding may move the latent.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.figure import Figure
from safetensors.numpy import save_file

from experiments.figures import time_and_context as figures
from experiments.figures.time_and_context import Moved
from phantom.prompts import shown
from stable_diffusion_tf.errors import UsageError
from xray import measure, rounding, script
from xray.methods import conditioning
from xray.methods.conditioning import KINDS, Fit, Swap
from xray.methods.drawing import to_pictures

EXAMPLE = "a rabbit on a blue background"
OTHER = "a car on a yellow background"


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    other: str = OTHER,
    shift: int = 1,
    pictures: int = 3,
    batch: int = 16,
    steps: int = 6,
    guidance: float = 4.0,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Swap the time or the words that the UNet hears, and measure what moves.

    Args:
        prompt: what to draw.
        other: whose words are heard instead.
        shift: by how many steps the time is wrong.
        pictures: drawn of each swap, 2 or more.
        batch: runs that are drawn at a time, as many as the pictures or more.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated.
        seed: draws the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    check(shift, pictures, batch)
    sd = script.load_model(weights)
    if sd.unet_config.time_cond_proj_dim:
        raise UsageError(f"{weights} draws new noise in each step; name other weights")
    context, strange, uncond = sd.encode_text([prompt, other, ""])[:, None]
    if np.array_equal(context, strange):
        raise UsageError(f"the model reads {prompt!r} and {other!r} alike; try another --other")
    both = np.concatenate([context, strange])
    run = {"uncond": uncond, "steps": steps, "guidance": guidance}
    sd.denoise(context, **run)  # not begun: it looks
    noise = sd.draw_noise(seed, batch)
    heard = conditioning.heard_times(sd.timesteps(steps), shift, len(sd.alphas) - 1)
    blocks = conditioning.find_blocks(sd)
    folder = script.make_folder(out, "test_time_and_context", prompt)
    with script.saving_into(folder):
        plain = [*sd.denoise(np.repeat(context, batch, 0), latent=noise, **run)]
        fits = conditioning.fit_decoder(sd, plain[steps // 2], both, heard)
        ears = conditioning.listen(sd, both, uncond, noise, heard)
        swaps = conditioning.list_swaps(blocks, steps)
        jobs = [(Swap("itself"), 0), *((swap, i) for swap in swaps for i in range(pictures))]
        again = rounding.redrawn(sd, np.repeat(context, batch, 0), noise, run)
        itself, *latents = conditioning.swap_all(sd, jobs, noise, context, ears, run)
        latents = np.reshape(latents, (len(swaps), pictures, *itself.shape))
        ends = plain[-1].x_prev
        far = conditioning.apart(latents, ends[:pictures]) / conditioning.between(ends)
        moved = sort_out(100 * far, blocks, steps)
        title = finding(moved, fits, other)
        images = to_pictures(sd, np.concatenate([ends[None, :pictures], latents]))
        sheet = draw_sheet(images, swaps, moved, fits, (prompt, other), title)
        script.save_figure(sheet, folder / "swaps.png")
        arrays = {"plain": ends, "latents": latents, "pictures": images}
        save_file(arrays, folder / "swaps.safetensors")
    tell(moved, fits)
    control = rounding.hold(itself, ends[0], [ends, again])
    script.conclude(
        title,
        f"its own time and words put in by hand: {control}",
        picture=folder / "swaps.png",
        tensors=folder / "swaps.safetensors",
    )
    if not control.passed:
        raise SystemExit("the control failed: hearing its own time and words moved the latent")


def check(shift: int, pictures: int, batch: int) -> None:
    if shift < 1:
        raise UsageError(f"a shift of {shift} steps is no other time; try --shift 1")
    if pictures < 2:
        raise UsageError(f"{pictures} pictures have no standard error; try --pictures 3")
    if batch < pictures:
        raise UsageError(f"a batch of {batch} is less than the {pictures} pictures; try 16")


# --- measuring ---------------------------------------------------------------------------------


def sort_out(far: np.ndarray, blocks: Sequence[str], steps: int) -> Moved:
    """(swaps, pictures), in the order of `swapping.list_swaps`."""
    kinds = dict(zip(KINDS.values(), np.split(far, len(KINDS)), strict=True))
    return Moved(
        ["all", *blocks],
        {kind: rows[:-steps] for kind, rows in kinds.items()},
        {kind: rows[-steps:] for kind, rows in kinds.items()},
    )


# --- telling -----------------------------------------------------------------------------------


def draw_sheet(
    images: np.ndarray,
    swaps: Sequence[Swap],
    moved: Moved,
    fits: dict[str, dict[str, Fit]],
    prompts: tuple[str, str],
    title: str,
) -> Figure:
    """images: (1 + swaps, pictures, H, W, 3) uint8, first those with nothing swapped."""
    block = strongest(moved, KINDS["words"])
    wanted = [Swap("words"), Swap("words", block), Swap("noisier"), Swap("cleaner")]
    rows = [0, *(1 + swaps.index(swap) for swap in wanted)]
    names = ["nothing swapped", *(f"{KINDS[s.kind]}\n{place_of(s)}" for s in wanted)]
    labels = [name + judged(images[row], prompts) for name, row in zip(names, rows, strict=True)]
    return figures.swap_sheet(images[rows, 0], labels, moved, fits, title)


def place_of(swap: Swap) -> str:
    return f"in {figures.named(swap.block, ' ')} alone" if swap.block else "everywhere"


def judged(images: np.ndarray, prompts: tuple[str, str]) -> str:
    """How many pictures (n, H, W, 3) show what each prompt names; '' off the phantom's world."""
    right = [shown(images, prompt) for prompt in prompts]
    if any(verdicts is None for verdicts in right):
        return ""
    first, second = (int(verdicts.sum()) for verdicts in right)
    return f"\njudged the prompt: {first}, the other: {second} of {len(images)}"


def strongest(moved: Moved, kind: str) -> str:
    """The block that alone moves most."""
    return moved.places[1 + int(np.argmax(moved.by_place[kind][1:].mean(1)))]


def tell(moved: Moved, fits: dict[str, dict[str, Fit]]) -> None:
    print(f"{'moves':21}{''.join(f'{kind:>18}' for kind in moved.by_place)}")
    for i, place in enumerate(moved.places):
        print(f"{place:21}{''.join(f'{said(far[i]):>18}' for far in moved.by_place.values())}")
    print("scale and offset explain")
    for block, kinds in fits.items():
        told = (f"{100 * fit.explained:.0f} %" for fit in kinds.values())
        print(f"{block:21}{''.join(f'{one:>18}' for one in told)}")


def finding(moved: Moved, fits: dict[str, dict[str, Fit]], other: str) -> str:
    words, noisier, cleaner = KINDS.values()
    block = strongest(moved, words)
    alone = moved.by_place[words][moved.places.index(block)]
    step = int(np.argmax(moved.by_step[words].mean(1)))
    seen = max(fits, key=lambda at: fits[at][words].change)
    explained = {kind: fits[seen][kind].explained for kind in KINDS.values()}
    return (
        f"Hearing “{other}” moves the latent by {said(moved.by_place[words][0])} of the distance "
        f"between two seeds, in {block} alone by {said(alone)}, in step {step + 1} alone by "
        f"{said(moved.by_step[words][step])}; the time of a noisier step by "
        f"{said(moved.by_place[noisier][0])}, of a cleaner by {said(moved.by_place[cleaner][0])}. "
        f"A scale and an offset for each channel explain {100 * explained[words]:.0f} % of what "
        f"the words do to {seen}, and {100 * explained[noisier]:.0f} and "
        f"{100 * explained[cleaner]:.0f} % of what the times do"
    )


def said(x: np.ndarray) -> str:
    return f"{x.mean():.0f} ± {measure.standard_error(x):.0f} %"


if __name__ == "__main__":
    script.run(main)
