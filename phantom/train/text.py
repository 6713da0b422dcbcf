"""Teach a text encoder who stands where, as that of the phantom with registers was: `python -m
phantom.train.text`.

"A cat left of an apple" tells where the cat is only to who knows that the cat was named first.
Word, order and place say nothing two by two, so there is no slope towards all three, and denoising
alone did not find them in 270,000 scenes. Therefore the text encoder is first trained by a task of
its own, as that of Stable Diffusion was (CLIP: Radford et al., arXiv 2103.00020): a reader asks the
context what stands in each of 4×4 cells and on what background; and, so that there is a path to
it, what was named first and second and where these two stand. The reader is thrown away, and
`phantom.train.diffusion` keeps the text encoder as it is written here. Soon every vector of the
context, padding above all, knows the scene; `phantom.train.words` teaches otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tyro
from keras import ops

from phantom.train.layout import Reader, look, spread
from phantom.train.loop import REGISTERS, train
from phantom.world import OF_REGISTERS, Scene, scenes
from stable_diffusion_tf import layers, precisions
from stable_diffusion_tf.checkpoint.folder import EXTRAS, open_part
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.write import write_part
from stable_diffusion_tf.clip import CLIPText
from stable_diffusion_tf.config import CLIPTextConfig
from stable_diffusion_tf.tokenizer import Tokenizer

TEXT = CLIPTextConfig(
    hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4
)
BATCH, PAIRS = 64, 56  # captions, and how many of them tell of two things
WEIGHTS = {"kinds": 1.0, "roles": 1.0, "names": 0.3, "colours": 0.3}  # of the losses


class Pupil(keras.Model):
    """ids (b, 77) → the reader's logits; how far the context has moved from where it `began` adds
    `keep` times that to the loss."""

    def __init__(self, text: CLIPTextConfig, began: CLIPText | None = None, keep: float = 0.0):
        super().__init__(name="pupil")
        self.text_encoder = CLIPText(text)
        self.reader = Reader(name="reader")
        self.began = began
        self.keep = keep

    def build(self, *shapes):
        pass

    def call(self, ids):
        context = self.text_encoder(ids)  # (b, 77, width)
        if self.began is not None:
            moved = ops.cast(context - self.began(ids), "float32")
            self.add_loss(self.keep * ops.mean(ops.square(moved)))
        return self.reader(context)


@dataclass(frozen=True)
class Exercises:
    """Captions as rows of the token ids that occur, and the right answers of `layout.look`."""

    captions: np.ndarray  # (n, 77) int32
    roles: np.ndarray  # (n, cells, 3)
    names: np.ndarray  # (n, 2)
    colours: np.ndarray  # (n, 1)
    pairs: np.ndarray  # where there are two things


def prepare(drawn: Sequence[Scene]) -> tuple[Exercises, np.ndarray]:
    """The exercises of scenes, and the token ids that occur, ascending."""
    captions, _, words = number_words(drawn)
    roles, names, colours = look(drawn)
    return Exercises(captions, roles, names, colours, np.flatnonzero(names[:, 1])), words


def number_words(drawn: Sequence[Scene]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Captions (n, 77) and the empty caption (77,) as rows of `words`; the words (w,), token ids
    that occur, ascending."""
    words, rows = np.unique(Tokenizer()([s.caption for s in drawn] + [""]), return_inverse=True)
    rows = rows.reshape(-1, 77).astype(np.int32)
    return rows[:-1], rows[-1], words


def draw_batch(given: Exercises, rng: np.random.Generator):
    """A batch as fit wants it: captions, the right answers."""
    some = rng.choice(given.pairs, PAIRS), rng.integers(len(given.captions), size=BATCH - PAIRS)
    rows = np.concatenate(some)
    roles, names = given.roles[rows], given.names[rows]
    return given.captions[rows], {
        "kinds": spread(roles, names),
        "roles": roles,
        "names": names,
        "colours": given.colours[rows],
    }


def read_text_encoder(folder: Path, network: CLIPText, words: np.ndarray) -> None:
    """Take over the weights of a checkpoint; of its vocabulary, the rows of `words`."""
    whole = layers.build(CLIPText(TEXT), keras.KerasTensor((1, 77), dtype="int32"))
    load(whole, open_part(folder, "text_encoder"), EXTRAS["text_encoder"])
    for mine, theirs in zip(network.weights, whole.weights, strict=True):
        value = ops.convert_to_numpy(theirs)
        mine.assign(value if mine.shape == theirs.shape else value[words])


def write_text_encoder(folder: Path, network: CLIPText, words: np.ndarray) -> None:
    """The text encoder with the full vocabulary: the rows of words never seen are zero."""
    whole = layers.build(CLIPText(TEXT), keras.KerasTensor((1, 77), dtype="int32"))
    for new, old in zip(whole.weights, network.weights, strict=True):
        value = ops.convert_to_numpy(old)
        if new.shape != old.shape:
            rows = np.zeros(new.shape, np.float32)
            rows[words] = value
            value = rows
        new.assign(value)
    write_part(folder, "text_encoder", TEXT, [whole], "float16")


def begin(words: np.ndarray, start_from: Path | None, keep: float) -> Pupil:
    """A new text encoder, or that of a checkpoint beside a copy that stays as it is."""
    text, ids = replace(TEXT, vocab_size=len(words)), keras.KerasTensor((None, 77), dtype="int32")
    if start_from is None:
        pupil = Pupil(text)
        pupil(ids)
        return pupil
    began = layers.build(CLIPText(text), ids)
    read_text_encoder(start_from, began, words)
    began.trainable = False
    pupil = Pupil(text, began, keep)
    pupil(ids)
    pupil.text_encoder.set_weights(began.get_weights())
    return pupil


def main(
    steps: int = 2000,
    scene_count: int = 24576,
    seed: int = 0,
    precision: str = "mixed_bfloat16",
    out: Path = REGISTERS,
    start_from: Path | None = None,
    keep: float = 0.03,
) -> None:
    """Teach the text encoder who stands where.

    Args:
        steps: steps in all, of 64 captions each; a run that was interrupted goes on.
        scene_count: scenes to draw.
        seed: draws the scenes, the weights and the captions.
        precision: mixed_bfloat16 or float32.
        out: the checkpoint folder, to which the part text_encoder is added.
        start_from: a checkpoint folder whose text_encoder to teach; by default a fresh start.
        keep: weight of the loss of moving away from the text encoder that it started from.
    """
    keras.utils.set_random_seed(seed)
    exercises, words = prepare(scenes(seed, scene_count, things=OF_REGISTERS))
    with precisions.precision(precision):
        pupil = begin(words, start_from, keep)
    share = keras.losses.CategoricalCrossentropy(from_logits=True)
    one = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    train(
        pupil,
        lambda rng: draw_batch(exercises, rng),
        "text",
        steps,
        seed,
        every=250,
        peak=1e-3,
        loss={"kinds": share, "roles": share, "names": one, "colours": one},
        loss_weights=WEIGHTS,
    )
    write_text_encoder(out, pupil.text_encoder, words)
    print(f"saved {out / 'text_encoder'}")


if __name__ == "__main__":
    tyro.cli(main)
