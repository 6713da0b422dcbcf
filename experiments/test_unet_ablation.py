"""What does each block and each head of the UNet do?

A picture is drawn once as it is, and once for each part of the UNet that is knocked out in all
steps: what a residual block, an attention or a feed-forward layer adds to its shortcut is set to
zero (the shortcut stays), a skip brings zeros, a head of a cross-attention attends to nothing. The
bars show how far the picture moves, in order of execution, beside the distance to a picture from
another seed; a cross says that the judge no longer finds what the prompt names (only the phantom's
pictures can be judged). The map shows the heads. The control multiplies everything by one: it must
be the untouched picture but for rounding.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.figure import Figure
from safetensors.numpy import save_file

from experiments.figures import unet_ablation as figures
from phantom.judge import judge
from phantom.world import SIDE, THINGS
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import rounding, script
from xray.methods.ablation import Knockout, find_knockouts, knock_out
from xray.methods.drawing import decode, draw

EXAMPLE = "a rabbit left of a strawberry on a purple background"
SHOWN = 7  # knock-outs whose pictures are shown


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    steps: int = 10,
    guidance: float = 4.0,
    seed: int = 0,
    batch: int = 8,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Knock out each block and each head in turn, and see what the picture loses.

    Args:
        prompt: what to draw.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated.
        seed: draws the noise.
        batch: how many knock-outs are drawn at a time, 2 or more.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    if batch < 2:
        raise UsageError(f"a batch of {batch} has no second picture to compare with; try 8")
    sd = script.load_model(weights)
    places, knockouts = find_knockouts(sd)
    context, uncond = np.split(sd.encode_text([prompt, ""]), 2)
    run = {"uncond": uncond, "steps": steps, "guidance": guidance}
    noise = sd.draw_noise(seed, batch)  # the first is the picture, the others are other pictures
    plain = draw(sd, np.repeat(context, batch, 0), noise, run)
    folder = script.make_folder(out, "test_unet_ablation", prompt)
    with script.saving_into(folder):
        again = rounding.redrawn(sd, np.repeat(context, batch, 0), noise, run)
        untouched, latents = knock_out(sd, places, knockouts, context, noise, run)
        images = decode(sd, np.concatenate([plain, latents]))
        usual = distance(images[1:batch], images[0]).mean()
        image, images = images[0], images[batch:]
        lost = distance(images, image)
        missing = lacks(image[None], prompt)[0]
        gone = lacks(images, prompt) & ~missing
        title = f"“{prompt}”: {finding(knockouts, lost)}"
        figure = draw_sheet(knockouts, lost, gone, usual, image, images, title)
        script.save_figure(figure, folder / "ablation.png")
        write_table(folder / "ablation.csv", knockouts, lost, apart(latents, plain[0]), gone)
        save_file({"untouched": image, "knocked_out": images}, folder / "pictures.safetensors")
    if missing:
        print("the judge misses something in the untouched picture: no knock-out is judged")
    tell(knockouts, lost, gone, usual)
    control = rounding.hold(untouched, plain, [plain, again])
    script.conclude(
        title,
        f"everything times one: {control}",
        picture=folder / "ablation.png",
        table=folder / "ablation.csv",
        tensors=folder / "pictures.safetensors",
    )
    if not control.passed:
        raise SystemExit("the control failed: multiplying by one changed the picture")


# --- what is lost ------------------------------------------------------------------------------


def distance(images: np.ndarray, image: np.ndarray) -> np.ndarray:
    """How far pictures (n, H, W, 3) in [-1, 1] are from one: RMS, per cent of full scale, (n,)."""
    return 50 * np.sqrt(np.mean((images - image) ** 2, axis=(1, 2, 3)))


def apart(latents: np.ndarray, latent: np.ndarray) -> np.ndarray:
    """The distance between latents (n, h, w, 4) and one, as a share of its length, (n,)."""
    far = np.linalg.norm((latents - latent).reshape(len(latents), -1), axis=1)
    return far / np.linalg.norm(latent)


def lacks(images: np.ndarray, prompt: str) -> np.ndarray:
    """Whether pictures (n, H, W, 3) in [-1, 1] do not show all things that the prompt names, (n,)
    bool; False where the prompt, or the size of the pictures, is not of the phantom's world."""
    named = {thing for thing in THINGS if re.search(rf"\b{thing}\b", prompt)}
    if not named or images.shape[1:3] != (SIDE, SIDE):
        return np.zeros(len(images), bool)
    found = (judge(image, len(named)).matches for image in to_uint8(images))
    return np.array([named != {match.thing.name for match in matches} for matches in found])


# --- telling -----------------------------------------------------------------------------------


def tell(knockouts: Sequence[Knockout], lost: np.ndarray, gone: np.ndarray, usual: float) -> None:
    print(f"{len(knockouts)} knock-outs; {gone.sum()} hide from the judge what the prompt names")
    print(f"  {usual:5.1f} % of full scale: a picture from another seed")
    for i in np.argsort(-lost)[:SHOWN]:
        print(f"  {lost[i]:5.1f} % {said(knockouts[i])}")


def said(one: Knockout) -> str:
    return f"{one.kind}{'' if one.head is None else f' {one.head}'}, {one.place}"


def draw_sheet(
    knockouts: Sequence[Knockout],
    lost: np.ndarray,
    gone: np.ndarray,
    usual: float,
    image: np.ndarray,
    images: np.ndarray,
    title: str,
) -> Figure:
    """Blocks as bars, heads as a map, and the pictures that moved furthest."""
    head = np.array([one.head is not None for one in knockouts])
    blocks = [one for one in knockouts if one.head is None]
    bars = figures.Bars(
        [one.place for one in blocks],
        [one.kind for one in blocks],
        lost[~head],
        gone[~head],
        float(usual),
    )
    layers = list(dict.fromkeys(one.place for one in knockouts if one.head is not None))
    worst = np.argsort(-lost)[:SHOWN]
    labels = ["untouched"] + [f"{said(knockouts[i])}\n{lost[i]:.1f} %" for i in worst]
    return figures.knockout_sheet(
        bars,
        layers,
        lost[head].reshape(len(layers), -1),
        np.stack([image, *images[worst]]),
        labels,
        title,
    )


def finding(knockouts: Sequence[Knockout], lost: np.ndarray) -> str:
    head = np.array([one.head is not None for one in knockouts])
    first = int(np.argmax(np.where(head, -np.inf, lost)))
    return (
        f"without the {knockouts[first].kind} {knockouts[first].place} the picture moves most, by "
        f"{lost[first]:.0f} % of full scale; without a single head by {lost[head].max():.0f} % at "
        "most"
    )


def write_table(
    path: Path,
    knockouts: Sequence[Knockout],
    lost: np.ndarray,
    moved: np.ndarray,
    gone: np.ndarray,
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["address", "kind", "head", "picture, % RMS", "latent, relative", "gone"])
        for one, *numbers in zip(knockouts, lost, moved, gone, strict=True):
            pixels, latent, lacking = numbers
            table.writerow([*one, f"{pixels:.3f}", f"{latent:.4f}", int(lacking)])


if __name__ == "__main__":
    script.run(main)
