"""Can a word be learned from a few pictures?

Textual inversion (Gal et al., arXiv 2208.01618): a new word <s*> begins as a word that the model
knows, and its vector alone goes down the gradient of the denoiser's loss on five pictures of a
thing; the networks stay as they are. The thing is a sprite that the phantom was never trained on.
Then the word is used: in prompts, and to make it out of noised pictures of other things.

Left: what was learned from; what three words draw, each from the same noise; other pictures, and
what two words make of them. Right: the error on new pictures of the thing, with the same noise for
each word, and the likeness of the drawn pictures to the sprite. Beside it stand the word that it
began as and the best of the known words nearest to it.

The paper takes 5,000 steps, and warns that a word learns what a thing is about, not its precise
shape. So here: of a pear the phantom gets the colour and more or less the form. Only the noisier
timesteps teach, as in the clear ones x itself shows the thing. The control: a random direction, as
long as the learned vector, must do worse.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro
from safetensors.numpy import save_file

import stable_diffusion_tf
from experiments.figures import symbol_image2image as figures
from experiments.figures.symbol_image2image import RANDOM, WORD
from phantom import new_words
from phantom.world import FAMILY
from stable_diffusion_tf.errors import UsageError
from xray import script
from xray.measure import mean_of
from xray.methods.drawing import encode
from xray.options import Seeded, check_range
from xray.report import Control, Report

RANGES = {  # option → least, most, usual
    "number": (1, 64, 5), "steps": (5, 5000, 60), "learning_rate": (0, 1, 0.05),
    "batch": (1, 64, 8), "held": (1, 256, 32), "rivals": (2, 1000, 80), "pictures": (1, 64, 8),
}  # fmt: skip
WRONG = "a random direction does as well as what was learned"


@dataclass(frozen=True)
class Options(Seeded):
    renamed: ClassVar = {"--rate": "--learning-rate"}

    thing: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="THING")] = "pear"
    """a sprite of phantom/concepts.tsv, or a folder of pictures."""
    start: str | None = None
    """a word of one token, as which it begins; by default the sprite's family."""
    number: int = 5
    """how many pictures to learn from, 1 to 64."""
    steps: int = 60
    """steps of gradient descent, 5 to 5000."""
    learning_rate: float = 0.05
    """how far a step goes, 0 to 1."""
    batch: int = 8
    """examples of a step, 1 to 64."""
    held: int = 32
    """new pictures to ask about, 1 to 256."""
    rivals: int = 80
    """known words that are tried beside it, 2 to 1000."""
    pictures: int = 8
    """how many each word draws, 1 to 64."""

    def check(self) -> None:
        super().check()
        for name, allowed in RANGES.items():
            check_range(name.replace("_", "-"), getattr(self, name), *allowed)
        if self.start is None and self.thing not in FAMILY:
            raise UsageError(f"{self.thing} is no sprite; say with --start what the pictures show")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    from xray.methods.textual_inversion import Lesson, check_word, study  # they need Keras

    thing, number, seed, steps = options.thing, options.number, options.seed, options.steps
    token = check_word(sd, start := options.start or FAMILY[thing])
    images, captions = new_words.collect(thing, start, number, options.held, sd.size, seed)
    lesson = Lesson(encode(sd, images), sd.tokenize(captions), token, number)
    found = study(sd, lesson, steps, options.learning_rate, seed, options.batch, options.rivals)
    file = Path(options.folder or tempfile.mkdtemp()) / "learned_embeds.safetensors"
    save_file({WORD: found.words[-1:]}, file)
    words = start, found.rival, sd.add_word(file)
    made = new_words.use(sd, words, thing, options.pictures, seed)
    alike = new_words.compare(thing, words, made)
    every = found.curve[0], found.of_rival, found.curve[-1], found.of_random
    errors = dict(zip((*words, RANDOM), every, strict=True))
    finding, more = figures.tell_errors(steps, errors), mean_of(errors[RANDOM] - errors[WORD])
    table = [
        {"word": word, "error": mean_of(error), "more error": mean_of(error - errors[WORD])}
        | ({"likeness": mean_of(alike[word])} if word in alike else {})
        for word, error in errors.items()
    ]
    shown = {"learned from": images[:number], **made._asdict()}, found, errors, alike
    return Report(
        finding,
        Control(f"{RANDOM}, as long: its error is larger by", more, more.clears(0), WRONG),
        table=table,
        figure=figures.inversion_sheet(*shown, finding),
        tensors={"images": images, "words": found.words, "losses": found.curve} | made._asdict(),
        notes=[f"{WORD} is saved for text2image.py --words {file} '{WORD} on a blue background'"],
    )


if __name__ == "__main__":
    script.run_experiment(main, Options)
