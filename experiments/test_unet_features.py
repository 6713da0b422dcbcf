"""Which block of the UNet knows the layout, and when?

Left: a picture is drawn, and in each step the features of each block are shown by their first three
principal components as red, green and blue; a colour means the same in all steps of a block. The
number is how much like the last step's they are (cosine, 1 is the same).

Right, for the phantom only, whose masks are known: scenes of two things side by side are noised to
several timesteps, and a linear probe, one weighted sum of a block's channels, is fitted on some
scenes to tell things from background, and the left thing from the right one. The maps say how well
it does on other scenes: IoU with the mask, and right cells with ½ as chance. A block can do no
better than its grid lets it; for IoU that bound stands behind its name. The first two rows are what
a block must beat: the noisy latent itself, and the place of a cell. The masks that the best block's
probe draws of one scene are shown below.

Plug-and-play features find the layout in the middle of the decoder (arXiv 2211.12572). In Stable
Diffusion a linear probe finds the salient thing with a Dice of 0.85, an IoU of 0.74, most of it by
step 5 (arXiv 2306.05720), while a picture comes about; ours are real ones under noise. A network of
convolutions knows left from right only by what it sees of the edges, so a level with few cells
does. The phantom's 4×4 level (down block 2, mid block, up block 0) all but died in training: next
to nothing reads it, and what a probe finds there is of little use to the picture.

The control is a probe fitted on shuffled masks, which may do no better than to call everything a
thing; and looking at the run must not change where it ends, but for rounding.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import unet_features as figures
from experiments.figures.unet_features import Layout
from phantom.lessons import LATENT, PLACE, probe_scenes
from phantom.world import SIDE
from xray import measure, script
from xray.film import Film
from xray.film.replay import unwatched
from xray.methods import linear_probe
from xray.methods.drawing import to_pictures
from xray.methods.linear_probe import Scores
from xray.rounding import Held

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

EXAMPLE = "a rabbit left of a strawberry on a purple background"
TIMES = (980, 900, 800, 700, 600, 400, 200, 20)
BLOCKS = re.compile(r"unet\.(down_blocks\.\d+:0|mid_block|up_blocks\.\d+)")
SHOWN = 6  # steps of the run
ALIKE, MOST = 0.9, 0.9  # cosine of what looks alike; share of the best IoU that is "there"
SLACK = 0.05  # of IoU, by which a probe of shuffled masks may exceed chance


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    steps: int = 25,
    guidance: float = 7.5,
    number: int = 32,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Features of each block as colours, and what a linear probe reads off them.

    Args:
        prompt: what to draw for the colours.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated.
        number: how many scenes the probes are fitted on, 8 to 512; half as many score them.
        seed: draws the noise and the scenes.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("number", number, 8, 512, 32)
    script.check_seed(seed)
    sd = script.load_model(weights)
    nothing = np.zeros((1, 1, 1), np.float32)
    sd.denoise(nothing, nothing, steps, guidance, seed=seed)  # not begun: it looks
    folder = script.make_folder(out, "test_unet_features", prompt)
    with script.saving_into(folder):
        asked = {"steps": steps, "guidance": guidance, "seed": seed}
        film, unwatched = shoot(sd, prompt, asked, folder)
        layout = look(sd, film)
        known = sd.size == SIDE  # then its world is the phantom's
        scores = probe_scenes(sd, [*layout.colours], TIMES, number, seed) if known else None
        title = finding(layout, scores)
        figure = figures.features_sheet(layout, scores, title)
        script.save_figure(figure, folder / "features.png")
        save_file(in_arrays(layout, scores), folder / "features.safetensors")
    tell(layout, scores)
    script.conclude(
        title,
        f"unwatched: {unwatched}{tell_shuffled(scores)}",
        picture=folder / "features.png",
        tensors=folder / "features.safetensors",
        film=folder,
    )
    check(unwatched, scores)


# --- the run -----------------------------------------------------------------------------------


def shoot(sd: "StableDiffusion", prompt: str, asked: dict, folder: Path) -> tuple[Film, Held]:
    """The film of a run with the features of all blocks, and how far its end is from that of nobody
    looking."""
    from xray.probe import Probe, taps

    blocks = [tap.address for tap in taps(sd) if BLOCKS.fullmatch(tap.address)]
    film = Film.shoot(sd, prompt, probes=[Probe(blocks)], out=folder, **asked)
    return film, unwatched(sd, film)


def look(sd: "StableDiffusion", film: Film) -> Layout:
    """The film's features as colours, at some of its steps."""
    shown = np.unique(np.linspace(0, len(film) - 1, min(SHOWN, len(film))).round().astype(int))
    colours, alike = {}, {}
    for block in filter(BLOCKS.fullmatch, film.names):
        features = film.read(block)[:, -1]  # the prompt's half: (steps, h, w, c)
        colours[block] = linear_probe.components(features)[shown]
        alike[block] = linear_probe.likeness(features)
    expected = to_pictures(sd, film.read("x0", shown.tolist())[:, 0])
    return Layout(shown, expected, colours, alike)


# --- telling -----------------------------------------------------------------------------------


def in_arrays(layout: Layout, scores: Scores | None) -> dict[str, np.ndarray]:
    arrays = {f"{name}.colours": colours for name, colours in layout.colours.items()}
    arrays |= {f"{name}.likeness": alike for name, alike in layout.alike.items()}
    for kind in ("things", "sides", "shuffled") if scores else ():
        arrays |= {f"{name}.{kind}": rows for name, rows in getattr(scores, kind).items()}
    return {name: np.ascontiguousarray(a, np.float32) for name, a in arrays.items()}


def tell(layout: Layout, scores: Scores | None) -> None:
    for name, alike in layout.alike.items():
        start = int(np.argmax(alike >= ALIKE)) + 1
        print(f"{name:22} like its last step's from step {start:2} of {len(alike)}")
    if scores is None:
        return
    print(f"{'IoU of the things at t =':26}{''.join(f'{t:8}' for t in TIMES)}")
    for name, rows in scores.things.items():
        print(f"{name:26}{''.join(f'{x:8.2f}' for x in rows.mean(1))}")


def finding(layout: Layout, scores: Scores | None) -> str:
    if scores is None:
        start = {name: int(np.argmax(alike >= ALIKE)) + 1 for name, alike in layout.alike.items()}
        first, steps = min(start, key=start.get), len(next(iter(layout.alike.values())))
        return (
            f"the features of {first} are the first to look like their last step's "
            f"(cosine {ALIKE}), in step {start[first]} of {steps}"
        )
    found, sides = scores.things[scores.best], scores.sides
    top = int(np.argmax(found.mean(1)))
    when = int(np.argmax(found.mean(1) >= MOST * found.mean(1).max()))
    guide = max(layout.colours, key=lambda block: sides[block].mean())
    most = int(np.argmax(sides[guide].mean(1)))
    return (
        f"{bare(scores.best)} knows where things are: a linear probe finds them with an IoU of "
        f"{said(found[top])} at t = {TIMES[top]} (the latent itself: "
        f"{said(scores.things[LATENT][top])}), and {100 * MOST:.0f} % of that is there from t = "
        f"{TIMES[when]} on. Left from right it tells in {said(sides[scores.best][top])} of their "
        f"cells, {bare(guide)} in {said(sides[guide][most])} at t = {TIMES[most]}, and a cell's "
        f"place alone in {said(sides[PLACE][most])}"
    )


def bare(block: str) -> str:
    return block.removeprefix("unet.").removesuffix(":0")


def said(x: np.ndarray) -> str:
    return f"{x.mean():.2f} ± {measure.standard_error(x):.2f}"


def tell_shuffled(scores: Scores | None) -> str:
    if scores is None:
        return ""
    taught, chance = np.mean([*scores.shuffled.values()]), scores.chance.mean()
    return f"; probes of shuffled masks reach an IoU of {taught:.2f}, chance is {chance:.2f}"


def check(unwatched: Held, scores: Scores | None) -> None:
    """Raises SystemExit where looking changed the picture, or where shuffled masks teach."""
    if not unwatched.passed:
        raise SystemExit("the control failed: looking changed the picture")
    if scores and np.mean([*scores.shuffled.values()]) > scores.chance.mean() + SLACK:
        raise SystemExit("the control failed: a probe of shuffled masks finds the things")


if __name__ == "__main__":
    script.run(main)
