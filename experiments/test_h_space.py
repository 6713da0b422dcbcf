"""Is there a direction in the middle of the UNet that means something?

Two prompts that differ in a word are drawn from the same noises. In each step the features of a
block are averaged over cells and noises, and the direction is what the second prompt has more than
the first: one number for each channel. A multiple of it is then added to the block's features
(where the prompt is heard, not where the empty one is) while the first prompt is drawn from other
noises, and while another prompt is. How far a latent goes is told as a share of the way from where
the prompt's own words end to where the other word would have ended from the same noise.

Pictures in a row are of one noise, at growing scales; the last is what the word itself makes. The
third row adds a direction of the same length that means nothing: the same numbers shuffled among
the channels, with random signs. In the panels a direction that means something climbs in a straight
line, for another prompt as well, and the shuffled one stays near zero; bars are standard errors.

In a diffusion model of faces, directions at the mid block (the h-space) are linear in their scale
and carry over to other pictures (arXiv 2210.10960; not Stable Diffusion). In the phantom the mid
block and all of its level all but died in training, so the block is chosen by measurement: the one
that goes furthest at scale 1 for the noises that the direction was made of. One at the first block
goes further, 37 % of the way (--place unet.down_blocks.0.attentions.0), but in no straight line.
One number for each channel draws no outline, and says of no cell what it holds. The null control is
scale 0, which must leave the plain picture but for rounding.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import h_space as figures
from experiments.figures.h_space import Climb
from phantom.judge import judge
from phantom.world import BACKGROUNDS, SIDE, THINGS
from stable_diffusion_tf.errors import UsageError
from xray import measure, rounding, script
from xray.methods import steering
from xray.methods.drawing import draw, to_pictures

EXAMPLE, OTHER = "a rabbit on a blue background", "a car on a blue background"
SCALES = (-1.0, 0.0, 1.0, 1.5, 2.0)
CURVES = ("the prompt", "another prompt", "both, direction shuffled")
STRAIGHT, MUCH = 0.9, 0.1  # R² of what is called a straight line; share of the way that counts


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    change: tuple[str, str] = ("blue", "yellow"),
    other: str = OTHER,
    place: str | None = None,
    scales: tuple[float, ...] = SCALES,
    pictures: int = 5,
    steps: int = 8,
    guidance: float = 4.0,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Find the direction of a word in a block of the UNet, and steer other pictures with it.

    Args:
        prompt: what to draw; it holds the first word of the change.
        change: the word to leave, and the one to go to.
        other: another prompt with that word, to see whether the direction carries over.
        place: the address of the features, such as unet.mid_block; by default the mid block or
            that block of the decoder where the direction does most.
        scales: multiples of the direction, rising, with 0 among them.
        pictures: drawn at each scale, 2 or more; twice as many make the direction.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated.
        seed: draws the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    check([prompt, other], change, scales, pictures)
    sd = script.load_model(weights)
    if sd.unet_config.time_cond_proj_dim:
        raise UsageError(f"{weights} draws new noise in each step; name other weights")
    prompts = [prompt, other, prompt.replace(*change), other.replace(*change)]
    *contexts, uncond = sd.encode_text([*prompts, ""])
    if np.array_equal(contexts[0], contexts[2]):
        raise UsageError(f"the model reads {change[0]!r} and {change[1]!r} alike; try other words")
    run = {"uncond": uncond[None], "steps": steps, "guidance": guidance}
    sd.denoise(uncond[None], **run)  # not begun: it looks
    noise = sd.draw_noise(seed, 3 * pictures)
    shapes = steering.find_places(sd, place)
    folder = script.make_folder(out, "test_h_space", prompt)
    with script.saving_into(folder):
        seen = steering.steer_all(sd, np.stack(contexts), noise, shapes, place, scales, run)
        given = steering.rows_of(np.stack(contexts), noise)
        plain, again = (d(sd, *given, run) for d in (draw, rounding.redrawn))
        images, words = to_pictures(sd, seen.latents), to_pictures(sd, seen.plain[2:, :1])
        found = Climb(scales, find_shares(seen), sees(images, change[1]))
        title = finding(found, change, seen.place)
        rows = np.concatenate([images[:, :3, 0], words[None, [0, 1, 0], 0]])
        sheet = figures.climb_sheet(rows, found, seen.reach, seen.place, change, title)
        script.save_figure(sheet, folder / "climb.png")
        arrays = {name: getattr(seen, name) for name in ("direction", "latents", "plain")}
        save_file({**arrays, "pictures": images}, folder / "climb.safetensors")
    tell(found, seen)
    zero = seen.latents[scales.index(0)].reshape(plain.shape)
    control = rounding.hold(zero, plain, [plain, again])
    script.conclude(
        title,
        f"scale 0 beside the plain pictures: {control}",
        picture=folder / "climb.png",
        tensors=folder / "climb.safetensors",
    )
    if not control.passed:
        raise SystemExit("the control failed: a direction times zero changed the picture")


def check(
    prompts: Sequence[str], change: tuple[str, str], scales: Sequence[float], pictures: int
) -> None:
    first, second = change
    for prompt in prompts:
        if first not in prompt.split():
            raise UsageError(f"{prompt!r} has no word {first!r}; name one of it with --change")
    if first == second:
        raise UsageError(f"from {first!r} to itself there is no way; name another word")
    if len(scales) < 3 or 0 not in scales or any(b <= a for a, b in pairwise(scales)):
        raise UsageError("scales are three or more that rise, 0 among them; try --scales 0 1 2")
    if pictures < 2:
        raise UsageError(f"{pictures} pictures have no standard error; try --pictures 5")


# --- measuring ---------------------------------------------------------------------------------


def find_shares(seen: steering.Steered) -> dict[str, np.ndarray]:
    """Curve → share of the way that the word itself goes, (scales, pictures)."""
    start, goal = np.split(seen.plain[[0, 1, 0, 1, 2, 3, 2, 3]], 2)
    return in_curves(steering.share_of_way(seen.latents, start, goal))


def in_curves(values: np.ndarray) -> dict[str, np.ndarray]:
    """(scales, 4, n), as `Steered` has them → CURVES."""
    first, second, *shuffled = np.moveaxis(values, 1, 0)
    return dict(zip(CURVES, (first, second, np.concatenate(shuffled, axis=1)), strict=True))


def sees(images: np.ndarray, word: str) -> dict[str, np.ndarray]:
    """Curve → whether the judge finds the thing or background in pictures (scales, 4, n, H, W, 3)
    uint8, (scales, pictures) bool; {} where the word or the pictures are not of the phantom's."""
    if word not in (*THINGS, *BACKGROUNDS) or images.shape[-3:-1] != (SIDE, SIDE):
        return {}
    findings = map(judge, images.reshape(-1, SIDE, SIDE, 3))
    right = [word in {f.background, *(m.thing.name for m in f.matches)} for f in findings]
    return in_curves(np.reshape(right, images.shape[:3]))


# --- telling -----------------------------------------------------------------------------------


def tell(found: Climb, seen: steering.Steered) -> None:
    for place, share in seen.reach.items():
        print(f"{place:30} at scale 1 {said(share):>10} of the way")
    print(f"{'scale':7}{''.join(f'{name:>26}' for name in CURVES)}")
    for i, scale in enumerate(found.scales):
        print(f"{scale:<7g}{''.join(f'{said(found.shares[name][i]):>26}' for name in CURVES)}")


def finding(found: Climb, change: tuple[str, str], place: str) -> str:
    lines = {name: steering.fit_lines(found.scales, found.shares[name]) for name in CURVES}
    (own, r2), (other, _), (shuffled, _) = lines.values()
    name = f"the direction “{change[0]} → {change[1]}” at {place.removeprefix('unet.')}"
    goes = f"each unit of {name} goes {said(own)} of the word's own way"
    if not measure.exceeds(own, shuffled):
        return f"No: {goes}, no more than a shuffled one, {said(shuffled)}"
    straight = "in a straight line" if r2.mean() >= STRAIGHT else "but not in a straight line"
    carries = "" if measure.exceeds(other, shuffled) else "no more than the shuffled one, "
    answer = "Yes" if own.mean() >= MUCH else "Hardly"
    return (
        f"{answer}: {goes}, {straight} (R² {r2.mean():.2f}); for another prompt {carries}"
        f"{said(other)}; shuffled {said(shuffled)}{tell_judged(found, change[1])}"
    )


def tell_judged(found: Climb, word: str) -> str:
    """What the judge says at the scale that convinces it most often."""
    if not found.judged:
        return ""
    own, other, shuffled = (found.judged[name] for name in CURVES)
    right = np.concatenate([own, other], axis=1)  # (scales, 2 · pictures)
    best = int(np.argmax(right.sum(1)))
    if not right.any():
        return f"; at no scale the judge sees {word}"
    return (
        f"; at scale {found.scales[best]:g} the judge sees {word} in {right[best].sum()} of "
        f"{right.shape[1]} pictures, shuffled in {shuffled[best].sum()}"
    )


def said(share: np.ndarray) -> str:
    return f"{100 * share.mean():.0f} ± {100 * measure.standard_error(share):.0f} %"


if __name__ == "__main__":
    script.run(main)
