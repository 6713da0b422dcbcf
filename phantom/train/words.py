"""Teach the phantom's text encoder that each word speaks for itself: `python -m
phantom.train.words`.

`phantom.train.text` asks the context as a whole, and soon every vector of it, padding above all,
knows the scene. Here single vectors are asked (phantom/train/answers.py), each by a linear reader
that is thrown away, and the padding is asked nothing. `phantom.train.silent` trains the UNet that
listens.
"""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tyro

from phantom.train.answers import ANSWERS, LENGTH, UNASKED, WordReader, answer
from phantom.train.loop import train
from phantom.train.text import TEXT, number_words, write_text_encoder
from phantom.world import CORE, for_evaluation, scenes
from stable_diffusion_tf import precisions
from stable_diffusion_tf.clip import CLIPText
from stable_diffusion_tf.config import CLIPTextConfig

NEXT = Path("weights/phantom-next")
BATCH = 64
PLACES = 10.0  # weight of that loss, whose mean is over all 24 vectors, of which two are asked


class Speaker(keras.Model):
    """ids (b, 24) → what a reader tells from each vector of the context alone."""

    def __init__(self, text: CLIPTextConfig):
        super().__init__(name="speaker")
        self.text_encoder = CLIPText(text)
        self.reader = WordReader(name="reader")

    def build(self, *shapes):
        pass

    def call(self, ids):
        return self.reader(self.text_encoder(ids))


def examine(speaker: Speaker, words: np.ndarray, number: int = 1000) -> dict[str, float]:
    """Per cent of the questions answered rightly on scenes whose pairs are new; of places, the
    role that covers most of a cell."""
    drawn = scenes(2, number // 2, for_evaluation, 1, CORE) + scenes(
        3, number // 2, for_evaluation, 2, CORE
    )
    captions, _, seen = number_words(drawn)
    rows = np.searchsorted(words, seen)[captions[:, :LENGTH]].astype(np.int32)
    told, right = speaker.predict(rows, verbose=0), answer(drawn)
    marks = {}
    for name in ANSWERS:
        wanted = getattr(right, name)
        asked = wanted != UNASKED
        marks[name] = 100 * float(np.mean((told[name].argmax(-1) == wanted)[asked]))
    cells = np.repeat(right.places.argmax(-1)[:, None], right.placed.shape[1], axis=1)
    marks["places"] = 100 * float(np.mean((told["places"].argmax(-1) == cells)[right.placed]))
    return marks


def main(
    steps: int = 3000,
    scene_count: int = 24576,
    seed: int = 0,
    precision: str = "float32",
    out: Path = NEXT,
) -> None:
    """Teach each word to speak for itself.

    Args:
        steps: steps in all, of 64 captions each; a run that was interrupted goes on.
        scene_count: scenes to draw.
        seed: draws the scenes, the weights and the captions.
        precision: float32, or mixed_bfloat16 where the processor has it.
        out: the checkpoint folder, to which the part text_encoder is added.
    """
    keras.utils.set_random_seed(seed)
    drawn = scenes(seed, scene_count, things=CORE)
    captions, _, words = number_words(drawn)
    answers = answer(drawn)
    with precisions.precision(precision):
        speaker = Speaker(replace(TEXT, vocab_size=len(words)))
    speaker(keras.KerasTensor((None, LENGTH), dtype="int32"))

    def draw(rng: np.random.Generator):
        rows = rng.integers(len(captions), size=BATCH)
        return captions[rows, :LENGTH], answers[rows]

    one = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=UNASKED)
    share = keras.losses.CategoricalCrossentropy(from_logits=True)
    train(
        speaker,
        draw,
        "words",
        steps,
        seed,
        every=250,
        peak=1e-3,
        loss={name: one for name in ANSWERS} | {"places": share},
        loss_weights={name: 1.0 for name in ANSWERS} | {"places": PLACES},
    )
    print({name: round(mark, 1) for name, mark in examine(speaker, words).items()})
    write_text_encoder(out, speaker.text_encoder, words)
    print(f"saved {out / 'text_encoder'}")


if __name__ == "__main__":
    tyro.cli(main)
