"""Can a word be learned from a few pictures?

Textual inversion (Gal et al., arXiv 2208.01618): a new word <s*> begins as a word that the model
knows, and its vector alone goes down the gradient of the denoiser's loss on five pictures of a
thing; the networks stay as they are. The thing is a sprite that the phantom was never trained on.
Then the word is used: in prompts, and to make it out of noised pictures of other things.

Left, top to bottom: what was learned from; what three words draw, each from the same noise; other
pictures, and what two words make of them. Right: the error on new pictures of the thing, with the
same noise for each word, and how alike the drawn pictures are to the sprite. The numbers are these,
against the word that it began as and against the best of the known words nearest to it.

The paper takes 5,000 steps, and warns that a word learns what a thing is about and not its precise
shape. So here, and more so: the phantom knows 40 things to mix a new one from, SD 1.x millions. Of
a lemon it gets the colour, more or less the form, and a leaf now and then; try other sprites. Only
the noisier timesteps teach, as in the clear ones x itself shows the thing, whatever the word. The
control: a random direction, as long as the learned vector, must do worse.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import symbol_image2image as figures
from phantom.portraits import enlarged, fitting, likeness, portrait, portraits
from phantom.world import BACKGROUNDS, FAMILY, SIDE, THINGS, put, with_article
from stable_diffusion_tf import scheduler
from stable_diffusion_tf.errors import UsageError
from xray import measure, script
from xray.measure.telling import with_error
from xray.methods import drawing
from xray.pictures import read_pictures

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

WORD = "<s*>"
HELD, DRAWN = 12, 5  # new pictures to ask about, pictures that a word draws
RUN = {"steps": 12, "guidance": 4.0}
FIRST = 3  # the step that begins with a noised picture


def main(
    thing: Annotated[str, tyro.conf.Positional] = "lemon",
    /,
    start: str | None = None,
    number: int = 5,
    steps: int = 60,
    rate: float = 0.05,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Learn a word from pictures, and draw with it.

    Args:
        thing: a sprite of phantom/concepts.tsv, or a folder of pictures.
        start: a word of one token, as which it begins; by default the sprite's family.
        number: how many pictures to learn from, 1 to 64.
        steps: steps of gradient descent, 5 to 5000.
        rate: how far a step goes, 0 to 1.
        seed: draws pictures and noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("number", number, 1, 64, 5)
    script.check_range("steps", steps, 5, 5000, 60)
    script.check_range("rate", rate, 0, 1, 0.05)
    script.check_seed(seed)
    start = FAMILY.get(thing) if start is None else start
    if start is None:
        raise UsageError(f"{thing} is no sprite; of a folder, say with --start what is in it")
    sd = script.load_model(weights)
    from xray.methods import textual_inversion

    token = textual_inversion.check_word(sd, start)
    images, captions = collect(thing, start, number, sd.size, seed)
    folder = script.make_folder(out, "text_symbol_image2image", Path(thing).name)
    with script.saving_into(folder):
        latents = np.concatenate([sd.encode_image(image[None]) for image in images])
        lesson = textual_inversion.Lesson(latents, sd.tokenize(captions), token, number)
        found = textual_inversion.study(sd, lesson, steps, rate, seed)
        save_file({WORD: found.words[-1:]}, folder / "learned_embeds.safetensors")
        words = start, found.rival, sd.add_word(folder / "learned_embeds.safetensors")
        made = use(sd, words, thing, seed)
        alike = compare(thing, words, made)
        errors = dict(zip(words, (found.curve[0], found.of_rival, found.curve[-1]), strict=True))
        title = finding(steps, errors, alike)
        rows = {"learned from": images[: min(number, DRAWN)], **made._asdict()}
        sheet = figures.inversion_sheet(rows, found, errors, alike, title)
        script.save_figure(sheet, folder / "word.png")
        arrays = {"images": images, "words": found.words, "losses": found.curve}
        save_file(arrays | made._asdict(), folder / "word.safetensors")
    tell(errors, alike)
    away = found.of_random - found.curve[-1]
    script.conclude(
        title,
        f"a random direction, as long: an error larger by {with_error(away, 4)}",
        picture=folder / "word.png",
        tensors=folder / "word.safetensors",
        word=folder / "learned_embeds.safetensors",
    )
    if standing(away) != "more than":
        raise SystemExit("the control failed: a random direction does as well as what was learned")


# --- what it learns from -----------------------------------------------------------------------


def collect(
    thing: str, start: str, number: int, size: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Pictures (number + HELD, size, size, 3) uint8, captioned with the word to begin as. Of a
    folder, those to ask about are those to learn from, and only the noise is new."""
    if thing in FAMILY:
        images, captions = portraits(thing, start, number + HELD, np.random.default_rng(seed))
        return enlarged(images, size), captions
    found = read_pictures(Path(thing), size, number)
    rows = [np.resize(np.arange(len(found)), n) for n in (number, HELD)]
    return found[np.concatenate(rows)], [with_article(start)] * (number + HELD)


# --- the word in use ---------------------------------------------------------------------------


class Made(NamedTuple):
    """Pictures of other things, (DRAWN, H, W, 3) uint8; what each word draws, (words, DRAWN, …);
    and what it makes of the others."""

    others: np.ndarray
    drawn: np.ndarray
    changed: np.ndarray


def use(sd: "StableDiffusion", words: Sequence[str], thing: str, seed: int) -> Made:
    rng = np.random.default_rng([seed, 2])
    grounds = (fitting(thing) if thing in FAMILY else [*BACKGROUNDS])[:DRAWN]
    names = [str(rng.choice([n for n in THINGS if g in fitting(n)])) for g in grounds]
    scenes = [portrait(g, put(rng, n, ("",))) for g, n in zip(grounds, names, strict=True)]
    others = enlarged(np.stack(scenes), sd.size)
    prompts = [f"{with_article(w)} on a {g} background" for w in words for g in grounds]
    *contexts, nothing = sd.encode_text([*prompts, ""])
    noise = sd.draw_noise(seed, DRAWN)
    clean = np.concatenate([sd.encode_image(image[None]) for image in others])
    noisy = scheduler.add_noise(clean, noise, sd.timesteps(RUN["steps"])[FIRST], sd.alphas)

    def make(x: np.ndarray, first: int) -> np.ndarray:
        run = {**RUN, "uncond": nothing[None], "start": first}
        made = drawing.paint(sd, np.stack(contexts), np.tile(x, (len(words), 1, 1, 1)), run)
        return made.reshape(len(words), DRAWN, *made.shape[1:])

    return Made(others, make(noise, 0), make(noisy, FIRST))


def compare(thing: str, words: Sequence[str], made: Made) -> dict[str, np.ndarray]:
    """Word → how alike its pictures are to the sprite, those drawn and those changed. Nothing
    where there is no sprite, or the pictures are not of the phantom's size."""
    if thing not in FAMILY or made.others.shape[1] != SIDE:
        return {}
    every = zip(words, np.concatenate(made[1:], axis=1), strict=True)
    return {word: np.array([likeness(image, thing) for image in some]) for word, some in every}


# --- telling -----------------------------------------------------------------------------------


def tell(errors: Mapping[str, np.ndarray], alike: Mapping[str, np.ndarray]) -> None:
    first = next(iter(errors.values()))
    print(f"{'word':10} {'error':>7} {'less its first':>17} {'likeness':>13}")
    for word, error in errors.items():
        less, seen = with_error(error - first, 4), with_error(alike[word], 2) if alike else ""
        print(f"{word:10} {error.mean():7.4f} {less:>17} {seen:>13}")


def finding(steps: int, errors: Mapping[str, np.ndarray], alike: Mapping[str, np.ndarray]) -> str:
    text = f"In {steps} steps {WORD} comes to an error on unseen examples of {against(errors, 4)}"
    return f"{text}; what it draws has a likeness of {against(alike, 2)}" if alike else text


def against(values: Mapping[str, np.ndarray], digits: int) -> str:
    """The mean of the last word's values, and how they stand to each other word's."""
    *others, word = values
    own = values[word]
    told = [f"{standing(own - values[w])} “{w}” ({values[w].mean():.{digits}f})" for w in others]
    return f"{own.mean():.{digits}f}, {' and '.join(told)}"


def standing(ahead: np.ndarray) -> str:
    """Paired differences in words: off zero by more than two standard errors of their mean?"""
    none = np.zeros(len(ahead))
    if measure.exceeds(ahead, none):
        return "more than"
    return "less than" if measure.exceeds(none, ahead) else "not clearly other than"


if __name__ == "__main__":
    script.run(main)
