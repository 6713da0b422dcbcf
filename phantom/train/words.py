"""Teach the phantom's text encoder that each word speaks for itself: `python -m
phantom.train.words`.

`phantom.train.text` asks the context as a whole, and soon every vector of it, padding above all,
knows the scene. Here single vectors are asked (phantom/train/answers.py), each by a linear reader
that is thrown away, and the padding is asked nothing; at last its mean becomes the zero vector.
`phantom.train.silent` trains the UNet that listens.
"""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tyro

from phantom.train.answers import ANSWERS, LENGTH, UNASKED, WordReader, answer
from phantom.train.contexts import ends_of
from phantom.train.loop import PHANTOM, train
from phantom.train.text import TEXT, number_words, write_text_encoder
from phantom.world import for_evaluation, scenes
from stable_diffusion_tf import precisions
from stable_diffusion_tf.clip import CLIPText
from stable_diffusion_tf.config import CLIPTextConfig

BATCH = 64
NOISE = 0.7  # beside vectors of deviation 1
STREAM = 0.02  # weight of the stream's square: else it drowns all words in one large constant
PLACES = 1.0  # weight of that loss, whose mean is over all 24 vectors, of which two are asked


class Speaker(keras.Model):
    """ids (b, 24) → what a reader tells from each vector of the context alone.

    While it learns the reader hears NOISE, and the last norm's scale and shift stay 1 and 0, so
    every vector is as long as every other and says what it says loudly.
    """

    def __init__(self, text: CLIPTextConfig, seed: int = 0):
        super().__init__(name="speaker")
        self.text_encoder = CLIPText(text)
        self.text_encoder.text_model.final_layer_norm.trainable = False
        self.reader = WordReader(name="reader")
        self.noise = keras.layers.GaussianNoise(NOISE, seed=seed)

    def build(self, *shapes):
        pass

    def call(self, ids, training=False):
        text = self.text_encoder.text_model
        stream = text.encoder(text.embeddings(ids))  # (b, 24, width)
        self.add_loss(STREAM * keras.ops.mean(keras.ops.square(stream)))
        return self.reader(self.noise(text.final_layer_norm(stream), training=training))


def examine(speaker: Speaker, words: np.ndarray, number: int = 1000) -> dict[str, float]:
    """Per cent of the questions answered rightly on scenes whose pairs are new; of places, the
    role that covers most of a cell."""
    alone, pairs = (scenes(1 + n, number // 2, for_evaluation, n) for n in (1, 2))
    drawn = alone + pairs
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


def hush(encoder: CLIPText, captions: np.ndarray, ends: np.ndarray) -> None:
    """Shift all vectors alike, so that those of padding have a mean of zero and what a UNet reads
    there adds next to nothing."""
    vectors = encoder.predict(captions, verbose=0)
    padding = vectors[np.arange(captions.shape[1]) > ends[:, None]]
    shift = encoder.text_model.final_layer_norm.beta
    shift.assign(keras.ops.convert_to_numpy(shift) - padding.mean(0, dtype=np.float64))


def main(
    steps: int = 3000,
    scene_count: int = 24576,
    seed: int = 0,
    precision: str = "float32",
    out: Path = PHANTOM,
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
    drawn = scenes(seed, scene_count)
    captions, empty, words = number_words(drawn)
    answers = answer(drawn)
    with precisions.precision(precision):
        speaker = Speaker(replace(TEXT, vocab_size=len(words)))
    speaker(keras.KerasTensor((None, LENGTH), dtype="int32"))
    tokens = speaker.text_encoder.text_model.embeddings.token_embedding.embeddings
    tokens.assign(keras.random.normal(tokens.shape, seed=seed))  # each is itself from the first

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
    hush(speaker.text_encoder, captions[:1024], ends_of(captions[:1024], empty[-1]))
    write_text_encoder(out, speaker.text_encoder, words)
    print(f"saved {out / 'text_encoder'}")


if __name__ == "__main__":
    tyro.cli(main)
