"""Textual inversion: the vector of a new word, learned from pictures by gradient descent.

Gal et al., arXiv 2208.01618, section 4: the networks stay as they are, and the loss is that of the
denoiser, E‖ε − ε(x_t, t, prompt)‖², eq. 2. Goes through Keras, so on any backend.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
from keras import ops

from stable_diffusion_tf import scheduler
from stable_diffusion_tf.checkpoint.textual_inversion import check_rows
from stable_diffusion_tf.compiled import Call, pass_on
from stable_diffusion_tf.errors import UsageError
from xray import measure
from xray.probe.gradients import check_gradients

from .recompute import recomputed

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion


POINTS = 5  # of the curve
LARGE = 100e6  # weights, from which on examples come one by one, and blocks are recomputed
TAUGHT, ASKED = (0.3, 1.0), (0.4, 0.55, 0.7, 0.85)  # timesteps, as a share of all


class Examples(NamedTuple):
    """Noised latents and the prompts that go with them."""

    x: np.ndarray  # (b, h, w, c)
    t: np.ndarray  # (b,)
    ids: np.ndarray  # (b, 77)
    here: np.ndarray  # (b, 77) where the word stands, 0 or 1
    noise: np.ndarray  # (b, h, w, c)

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        return {"x": self.x, "t": self.t, "ids": self.ids, "here": self.here}


class Learner(keras.Model):
    """{x, t, ids, here} → the noise in x, as the denoiser sees it with `word` at the marked
    places; the word, (width,), is all that learns."""

    def __init__(self, text_encoder: keras.Model, unet: keras.Model, start: np.ndarray):
        super().__init__(name="learner")
        text_encoder.trainable = unet.trainable = False
        self.text_encoder, self.unet = text_encoder, unet
        self.word = self.add_weight(shape=start.shape, initializer="zeros", name="word")
        self.word.assign(start)

    def build(self, *shapes):
        pass

    @property
    def is_large(self) -> bool:
        return self.unet.count_params() > LARGE

    def parts(self, rows: int) -> Iterator[slice]:
        """Of so many examples, those that fit into memory at once: of a large model one by one."""
        step = 1 if self.is_large else rows
        return (slice(start, start + step) for start in range(0, rows, step))

    def call(self, inputs):
        text = self.text_encoder.text_model
        table, ids = text.embeddings.token_embedding, inputs["ids"]
        here = ops.cast(inputs["here"], "float32")[..., None]  # (b, 77, 1)
        rows = text.embeddings(ids)  # (b, 77, width)
        more = here * (self.word - ops.cast(table(ids), "float32"))
        context = text.final_layer_norm(text.encoder(rows + ops.cast(more, rows.dtype)))
        return ops.cast(self.unet(inputs["x"], inputs["t"], context), "float32")


def check_word(sd: "StableDiffusion", start: str) -> int:
    """The token of the word to begin as. Raises UsageError where that is none, or no word can be
    learned with this model."""
    check_gradients(sd)
    if sd.unet_config.time_cond_proj_dim:
        raise UsageError("a latent consistency model learns no words; name the model it came from")
    check_rows(np.zeros((1, sd.text_config.hidden_size)), sd.text_config, "a new word")
    tokens = sd.tokenizer.encode(start)
    if len(tokens) != 1:
        raise UsageError(f"--start {start!r} is {len(tokens)} tokens, not one; try a simpler word")
    for word, near in sd.unknown_words(start).items():
        advice = f"try --start {near[0]}" if near else "name another word with --start"
        raise UsageError(f"the model never saw {word!r}; {advice}")
    return tokens[0]


def noised(
    latents: np.ndarray,
    t: np.ndarray,
    ids: np.ndarray,
    token: int,
    alphas: np.ndarray,
    rng: np.random.Generator,
) -> Examples:
    """Latents (b, h, w, c) with fresh noise at timesteps (b,); ids: (b, 77), in which `token`
    stands for the word."""
    noise = rng.standard_normal(latents.shape, dtype=np.float32)
    x = scheduler.add_noise(latents, noise, t, alphas)
    return Examples(x, t.astype(np.int32), ids, (ids == token).astype(np.float32), noise)


def errors(model: Learner, examples: Examples) -> np.ndarray:
    """The squared error of the predicted noise, (b,), one for each example."""
    like, word = keras.KerasTensor(examples.noise.shape), ops.convert_to_numpy(model.word)

    def predict(inputs: dict[str, np.ndarray], _: np.ndarray) -> np.ndarray:
        some = ({n: x[part] for n, x in inputs.items()} for part in model.parts(len(inputs["x"])))
        return np.concatenate([model.predict_on_batch(one) for one in some])

    predicted = pass_on(Call("learner", (examples.inputs, word), predict, lambda *_: like))
    return np.mean((predicted - examples.noise) ** 2, axis=(1, 2, 3), dtype=np.float64)


def losses(model: Learner, word: np.ndarray, examples: Examples) -> np.ndarray:
    """The errors (b,) with a word, (width,); the one that the model is learning is put back."""
    learning = ops.convert_to_numpy(model.word)
    model.word.assign(word)
    found = errors(model, examples)
    model.word.assign(learning)
    return found


def learn(
    model: Learner, draw: Callable[[int], Examples], steps: int, stops: np.ndarray
) -> np.ndarray:
    """The word after so many steps of the model's optimizer, (stops, width); `draw` gives a step's
    examples."""
    model.optimizer.build(model.trainable_variables)  # what it remembers is there from the first
    found = []
    for step in range(steps + 1):
        if step in stops:
            found.append(ops.convert_to_numpy(model.word).copy())
        if step < steps:
            take_step(model, draw(step))
    return np.stack(found)


def take_step(model: Learner, batch: Examples) -> None:
    """One step of the optimizer: of the word and what the optimizer remembers, new values. It says
    itself what is recomputed, for a look ahead makes a step alone, when the lesson is over."""
    state = [model.word, *model.optimizer.variables]
    before = [ops.convert_to_numpy(one).copy() for one in state]

    def step(inputs: dict[str, np.ndarray], noise: np.ndarray, _: list) -> list[np.ndarray]:
        with recomputed(model.unet) if model.is_large else nullcontext():
            for part in model.parts(len(noise)):  # whose gradients the optimizer averages
                model.train_on_batch({n: x[part] for n, x in inputs.items()}, noise[part])
        return [ops.convert_to_numpy(one).copy() for one in state]

    specs = [keras.KerasTensor(one.shape, one.dtype) for one in before]
    after = pass_on(Call("learning", (batch.inputs, batch.noise, before), step, lambda *_: specs))
    for variable, value in zip(state, after, strict=True):
        variable.assign(value)


# --- the words that are there already ----------------------------------------------------------


def nearest_tokens(sd: "StableDiffusion", word: np.ndarray, count: int) -> np.ndarray:
    """The tokens that are words by themselves, are known, and whose vectors have most nearly the
    direction of `word`, (width,); the nearest first, (count,) at most."""
    known = np.flatnonzero(sd.known_tokens)
    parts = np.array_split(known, 64)  # all vectors of SD 1.x in float64 are 0.3 GB
    alike = np.concatenate([measure.cosine(vectors(sd, some), word[None], 1) for some in parts])
    near = known[np.argsort(-alike)].tolist()
    whole = (i for i in near if sd.tokenizer.encode(sd.tokenizer.decode([i])) == [i])
    return np.array([*islice(whole, count)])


def best_token(model: Learner, tokens: np.ndarray, token: int, asked: Examples) -> int:
    """Of some tokens, (n,), but the one that the word began as, the one with the least error,
    found in rounds: all on two examples each, the best eighth of them on twelve."""
    count, tokens = len(tokens), tokens[tokens != token]
    for most, tried in ((count, 2), (-(-count // 8), 12)):
        sample = np.linspace(0, len(asked.t) - 1, tried).astype(int)
        found = mean_errors(model, tokens[:most], asked, sample)
        tokens = tokens[np.argsort(found)]
    return int(tokens[0])


def vectors(sd: "StableDiffusion", tokens: np.ndarray) -> np.ndarray:
    """The vectors of some tokens, (n,) → (n, width), or of one."""
    table = sd.network("text_encoder").text_model.embeddings.token_embedding.embeddings
    return ops.convert_to_numpy(ops.take(table, tokens, axis=0))


def mean_errors(
    model: Learner, tokens: np.ndarray, examples: Examples, sample: np.ndarray
) -> np.ndarray:
    """The mean error with each of some tokens, (n,), in the word's place in examples of these
    indices; in batches as large as the examples, for which the model is compiled."""
    size, row = len(examples.t), np.tile(sample, len(tokens))
    token = np.repeat(tokens, len(sample))[:, None]
    padded = np.resize(np.arange(len(row)), -(-len(row) // size) * size)
    asked = Examples(*(values[row] for values in examples))
    ids = np.where(asked.here == 1, token, asked.ids).astype(np.int32)
    asked = asked._replace(ids=ids, here=np.zeros_like(asked.here))
    batches = (Examples(*(values[at] for values in asked)) for at in padded.reshape(-1, size))
    found = np.concatenate([errors(model, batch) for batch in batches])[: len(row)]
    return found.reshape(len(tokens), -1).mean(axis=1)


# --- a lesson, from the first step to what came of it ------------------------------------------


class Lesson(NamedTuple):
    """Latents (n, h, w, c) and their prompts (n, 77), in which `token` stands for the word; the
    first `number` are to learn from, the others to ask about."""

    latents: np.ndarray
    ids: np.ndarray
    token: int
    number: int


class Learned(NamedTuple):
    """What came of a lesson; losses are of the pictures asked about, (m,), the mean over ASKED."""

    steps: np.ndarray  # (k,)
    words: np.ndarray  # (k, width): after these steps
    curve: np.ndarray  # (k, m): their losses
    rival: str  # the best of the known words nearest to what was learned
    of_rival: np.ndarray
    of_random: np.ndarray  # of a random direction, as long as what was learned


def study(
    sd: "StableDiffusion",
    lesson: Lesson,
    steps: int,
    rate: float,
    seed: int,
    batch: int = 8,
    rivals: int = 80,
) -> Learned:
    """Learn a word that begins as the lesson's token, and ask what it is worth, beside the best of
    so many known words. batch: examples of a step. Of a large model's batch one example after
    another is learned from, with gradient checkpointing."""
    begun = vectors(sd, lesson.token)
    model = Learner(sd.network("text_encoder"), sd.network("unet"), begun)
    asked = questions(lesson, sd.alphas, seed)
    stops = np.linspace(0, steps, POINTS).round().astype(int)
    parts = len([*model.parts(batch)])
    adam = keras.optimizers.Adam(rate, gradient_accumulation_steps=parts if parts > 1 else None)
    model.compile(adam, loss="mse", jit_compile=False)
    words = learn(model, partial(taught, lesson, sd.alphas, seed, batch=batch), steps, stops)
    best = best_token(model, nearest_tokens(sd, words[-1], rivals), lesson.token, asked)
    away = np.random.default_rng([seed, 3]).standard_normal(begun.shape)
    away *= np.linalg.norm(words[-1]) / np.linalg.norm(away)
    worth = [losses(model, word, asked) for word in (*words, vectors(sd, best), away)]
    *curve, of_rival, of_random = np.reshape(worth, (len(worth), -1, len(ASKED))).mean(axis=2)
    return Learned(stops, words, np.stack(curve), sd.tokenizer.decode([best]), of_rival, of_random)


def taught(lesson: Lesson, alphas: np.ndarray, seed: int, step: int, batch: int = 8) -> Examples:
    """A step's examples, evenly spread over the timesteps that teach."""
    rng = np.random.default_rng([seed, 0, step])
    rows = rng.integers(lesson.number, size=batch)
    share = (rng.random() + rng.permutation(batch)) / batch % 1
    t = np.interp(share, (0, 1), TAUGHT) * len(alphas)
    latents, ids, token, _ = lesson
    return noised(latents[rows], t.astype(int), ids[rows], token, alphas, rng)


def questions(lesson: Lesson, alphas: np.ndarray, seed: int) -> Examples:
    """Each picture to ask about at each timestep of ASKED."""
    latents, ids, token, number = lesson
    t = np.tile((np.array(ASKED) * len(alphas)).astype(int), len(latents) - number)
    rows = np.repeat(np.arange(number, len(latents)), len(ASKED))
    rng = np.random.default_rng([seed, 1])
    return noised(latents[rows], t, ids[rows], token, alphas, rng)
