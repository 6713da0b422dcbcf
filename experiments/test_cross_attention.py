"""Where does the model look when it hears a word?

While a picture is drawn, every cell of it asks the words what to become. How much each word is
asked, in all layers and heads and at all steps, is pooled into one heat map per word (xray/pooling
says how). The sheet shows the picture, and over its grey copy each word's map: bright is where the
word was asked most. The number printed is how much of the picture lies inside of the white line, a
fixed share of the map's range; of things that the phantom draws as it was told, also the IoU with
their own masks, and as the control the same masks under the map of another thing. The other
control: what is computed is the same when nobody looks, but for rounding.

With --image the model looks at a picture that exists, noised to several timesteps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro
from safetensors.numpy import save_file

from phantom.score_attention import masks_in
from phantom.world import BACKGROUNDS, SIDE
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_model
from xray import attention, measure, rounding, script
from xray.attention import sheets
from xray.attention.heat_map import pooling_for
from xray.film import Film
from xray.film.replay import unwatched
from xray.pictures import read_image
from xray.rounding import Held

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

EXAMPLE = "a rabbit left of a strawberry on a purple background"
SHOWN = 19  # words on the sheet


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    image: Path | None = None,
    steps: int = 25,
    guidance: float = 7.5,
    seed: int = 0,
    weights: str = "phantom",
    precision: Literal["float32", "bfloat16", "float16-storage"] = "float32",
    out: Path = Path("outputs"),
) -> None:
    """One heat map for each word of a prompt.

    Args:
        prompt: what to draw, or what is to be seen in the picture.
        image: a picture to look at; without one, the model draws its own.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated; 1 is not at all.
        seed: draws the noise.
        weights: a model's name, or its folder or file.
        precision: of the numbers; the latter two take half the memory.
        out: the folder to save into.
    """
    sd = script.load_model(weights, precision)
    words = sd.tokenizer.words(prompt)
    if not words:
        raise UsageError("the prompt has no word to listen to; try 'a cat'")
    for word, near in sd.unknown_words(prompt).items():
        print(f"the model never saw '{word}'; near it, it knows: {', '.join(near)}")
    given = None if image is None else read_image(image, sd.size)
    nothing = np.zeros((1, 1, 1), np.float32)
    sd.denoise(nothing, nothing, steps, guidance, seed=seed, progress=list)  # not begun: it looks
    sd.network("unet")  # what is wrong with it is said before anything is written
    folder = script.make_folder(out, "test_cross_attention", prompt)
    with script.saving_into(folder):
        if given is None:
            seen, shots, unwatched = draw(sd, prompt, steps, guidance, seed, folder)
            pooling = pooling_for(sd)
        else:
            seen, shots, unwatched = given, *examine(sd, given, prompt, seed)
            pooling = attention.DEFAULT
        known = masks_in(seen) if seen.shape[:2] == (SIDE, SIDE) else {}
        words = attention.phrases(words, [*known])
        found = attention.word_maps(shots, words, pooling, seen.shape[:2])
        own, other = score(found, known)
        title = save(folder, seen, found, prompt, own, other)
    script.conclude(
        title,
        f"with probes and without: {unwatched}",
        picture=folder / "maps.png",
        tensors=folder / "maps.safetensors",
    )
    if not unwatched.passed:
        raise SystemExit("the control failed: looking changed what the model computes")
    if other and not mean(own) > mean(other):
        raise SystemExit("the control failed: the map of another thing does as well")


def draw(
    sd: "StableDiffusion", prompt: str, steps: int, guidance: float, seed: int, folder: Path
) -> tuple[np.ndarray, Film, Held]:
    """The picture, its film, and how far it is from that of nobody looking."""
    asked = {"steps": steps, "guidance": guidance, "seed": seed}
    film = Film.shoot(sd, prompt, probes=[attention.probe()], out=folder, **asked)
    return film.image, film, unwatched(sd, film)


def examine(sd: "StableDiffusion", image: np.ndarray, prompt: str, seed: int) -> tuple[list, Held]:
    """What was read at each timestep, and how far the predicted noise is from that of nobody
    looking."""
    from xray.probe.instrumented import instrument

    x = np.repeat(sd.encode_image(image[None]), 2, axis=0)
    time, context = attention.TIMES[0], sd.encode_text(["", prompt])
    seen = instrument(sd, attention.probe())
    shots = attention.look(seen, image[None], [prompt], seed=seed)
    watched, plain = (one.predict_noise(x, time, context) for one in (seen, sd))
    twins = sd.predict_noise(
        rounding.nudged(np.tile(x, (2, 1, 1, 1))), time, np.tile(context, (2, 1, 1))
    )
    return shots, rounding.hold(watched, plain, [plain, *np.split(twins, 2)])


def score(
    found: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]
) -> tuple[dict[str, float], dict[str, float]]:
    """Thing → IoU of its mask with its own map, and with the map of another; none where the picture
    shows no two of the things that the prompt names."""
    things = [word for word in known if word in found and word not in BACKGROUNDS]
    own, other = {}, {}
    for word, next_one in zip(things, [*things[1:], *things[:1]], strict=True):
        own[word] = float(measure.iou_at(found[word], known[word], attention.INSIDE))
        if next_one != word:
            other[word] = float(measure.iou_at(found[next_one], known[word], attention.INSIDE))
    return own, other


def mean(scores: Mapping[str, float]) -> float:
    return float(np.mean([*scores.values()]))


def save(
    folder: Path,
    image: np.ndarray,
    found: Mapping[str, np.ndarray],
    prompt: str,
    own: Mapping[str, float],
    other: Mapping[str, float],
) -> str:
    """The sheet and the maps, and on the terminal a line for each word; returns the title."""
    words = [word for word in found if word not in attention.SPECIAL]
    held = {word: covers(found[word]) for word in words}
    labels = {}
    for word in words:
        labels[word] = f"covers {held[word]:.0%} of the picture"
        print(f"{word:14} {labels[word]}{told(word, own, other)}")
        labels[word] += f"\nIoU {own[word]:.2f}" if word in own else ""
    focused = min(held, key=held.get)
    finding = f"“{focused}” covers least, {held[focused]:.0%} of the picture"
    if own:
        finding = f"the things' maps meet their masks with {mean(own):.2f} IoU"
    if other:
        finding += f", another thing's with {mean(other):.2f}"
    shown = {word: found[word] for word in words[:SHOWN]}
    title = f"“{prompt}”: {finding}"
    figure = sheets.heat_sheet(to_model(image[None], 1)[0], shown, attention.INSIDE, title, labels)
    script.save_figure(figure, folder / "maps.png")
    arrays = {word: np.ascontiguousarray(heat, np.float32) for word, heat in found.items()}
    save_file(arrays, folder / "maps.safetensors")
    return title


def covers(heat: np.ndarray) -> float:
    """The part of the picture where a map is inside."""
    return float(np.mean(measure.between_extremes(heat) >= attention.INSIDE))


def told(word: str, own: Mapping[str, float], other: Mapping[str, float]) -> str:
    said = f", IoU with its mask {own[word]:.2f}" if word in own else ""
    return said + (f" (control, another thing's map: {other[word]:.2f})" if word in other else "")


if __name__ == "__main__":
    script.run(main)
