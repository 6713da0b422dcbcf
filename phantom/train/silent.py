"""Train the phantom whose words speak and whose padding is silent: `python -m
phantom.train.silent train`, and `... write`, at any time, to keep what it has come to.

As `phantom.train.diffusion` does, but the UNet never sees a caption's own end and padding: it sees
those of the empty caption, or in half of the scenes those of another caption, which say nothing of
the picture. So it has to read the words, as `phantom.train.words` taught them. Two levels, so that
the middle is 8×8; and as in Stable Diffusion the block after it reads no words, so that it is the
middle that gives things their places.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tyro
from keras import ops

from phantom.train.contexts import Contexts, ends_of, with_padding_of
from phantom.train.diffusion import (
    EMPTY_CAPTIONS,
    Data,
    Weigh,
    add_noise,
    encode_scenes,
    start_quiet,
)
from phantom.train.loop import PHANTOM, take_average, train
from phantom.train.text import TEXT, read_text_encoder
from phantom.world import scenes
from stable_diffusion_tf import layers, precisions, scheduler
from stable_diffusion_tf.checkpoint.folder import EXTRAS, open_part
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.write import SCHEDULER, write_json, write_part
from stable_diffusion_tf.clip import CLIPText
from stable_diffusion_tf.config import UNetConfig
from stable_diffusion_tf.unet import UNet

UNET = UNetConfig(
    sample_size=16,
    block_out_channels=(48, 96),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    attention_head_dim=4,
    cross_attention_dim=128,
    norm_num_groups=16,
)
BATCH = 32
OTHERS = 0.5  # of the scenes see the padding of another caption, the rest that of the empty one
PAIRS = 0.5  # of the scenes have two things; at first 0.7, as their places are learned last
LATE = 600  # the timestep from which on places are decided, and words are most of what is known
MEAN = 4.0
STATE = "silent"


class Listener(keras.Model):
    """{x (b, h, w, 4), t (b,), context (b, 77, width)} → the noise in x."""

    def __init__(self, config: UNetConfig):
        super().__init__(name="listener")
        self.unet = UNet(config)

    def build(self, *shapes):
        pass

    def call(self, inputs):
        return ops.cast(self.unet(inputs["x"], inputs["t"], inputs["context"]), "float32")


def build(config: UNetConfig, precision: str = "float32") -> Listener:
    with precisions.precision(precision):
        model = Listener(config)
    side, width = config.sample_size, config.cross_attention_dim
    model(
        {
            "x": keras.KerasTensor((None, side, side, config.in_channels)),
            "t": keras.KerasTensor((None,), dtype="int32"),
            "context": keras.KerasTensor((None, 77, width)),
        }
    )
    start_quiet(model.unet)
    return model


def encode_captions(folder: Path, data: Data) -> Contexts:
    """The captions through the text encoder as it was taught, the empty one last; float16."""
    network = CLIPText(replace(TEXT, vocab_size=len(data.words)))
    layers.build(network, keras.KerasTensor((None, 77), dtype="int32"))
    read_text_encoder(folder, network, data.words)
    ids = np.concatenate([data.captions, data.empty[None]]).astype(np.int32)
    parts = (network.predict_on_batch(ids[i : i + 64]) for i in range(0, len(ids), 64))
    vectors = np.concatenate([part.astype(np.float16) for part in parts])
    return Contexts(vectors, ends_of(ids, data.empty[-1]))


def draw_batch(
    data: Data,
    told: Contexts,
    alphas: np.ndarray,
    weigh: Weigh,
    rng: np.random.Generator,
    counts: np.ndarray,
    late: float = 0.0,
):
    """A batch as fit wants it: the noised latents and what is told of them, the noise, the
    weight of each. `counts`: how many things each scene has, (n,); `late`: the share of batches
    from LATE on."""
    alone, pairs = (rng.choice(np.flatnonzero(counts == n), BATCH) for n in (1, 2))
    rows = np.where(rng.random(BATCH) < PAIRS, pairs, alone)
    since = LATE if rng.random() < late else 0
    noised, noise, weight = add_noise(data.latents[rows], alphas, weigh, since, rng)
    empty = len(told.ends) - 1
    own = np.where(rng.random(BATCH) < EMPTY_CAPTIONS, empty, rows)
    padding = np.where(rng.random(BATCH) < OTHERS, rng.integers(empty, size=BATCH), empty)
    context = with_padding_of(told[own], told[padding]).astype(np.float32)
    return noised | {"context": context}, noise, weight


def squared_errors(noise, told):
    """Of the noise at each place, and of its mean over all places, MEAN times: (b, h, w). Weighed
    anew, what is best to tell stays the same; but the background's colour, which is all that x
    says little of at its noisiest, would be a hundredth of the loss."""
    missed = told - noise  # (b, h, w, 4)
    mean = ops.mean(missed, axis=(1, 2), keepdims=True)
    return ops.mean(ops.square(missed), axis=-1) + MEAN * ops.mean(ops.square(mean), axis=-1)


def train_unet(
    steps: int = 40000,
    scene_count: int = 24576,
    seed: int = 0,
    precision: str = "float32",
    out: Path = PHANTOM,
    vae: Path = PHANTOM,
    start_from: Path | None = None,
    gamma: float = 2.0,
    ceiling: float = 100.0,
    late: float = 0.35,
) -> None:
    """Train the UNet; a run that was interrupted goes on from its last state.

    Args:
        steps: steps in all, of 32 scenes each.
        scene_count: scenes to draw and encode.
        seed: draws the scenes, the weights and the noise.
        precision: float32, or mixed_bfloat16 where the processor has it.
        out: the checkpoint folder; it holds text_encoder, the other parts are added.
        vae: the checkpoint folder whose vae to use.
        start_from: a checkpoint folder whose unet to train on, where there is no state to go on
            from; by default a fresh start.
        gamma: the weight of the loss is min(gamma / SNR, ceiling).
        ceiling: see gamma.
        late: the share of batches that are noisy (from timestep LATE on), where the words decide.
    """
    keras.utils.set_random_seed(seed)
    data = encode_scenes(vae, scene_count, seed)
    told = encode_captions(out, data)
    counts = np.array([len(scene.things) for scene in scenes(seed, scene_count)])
    alphas = scheduler.alphas_cumprod()

    def weigh(snr: np.ndarray) -> np.ndarray:
        return np.minimum(gamma / snr, ceiling)

    model = build(UNET, precision)
    if start_from:
        load(model.unet, open_part(start_from, "unet"), EXTRAS["unet"])
    train(
        model,
        lambda rng: draw_batch(data, told, alphas, weigh, rng, counts, late),
        STATE,
        steps,
        seed,
        every=150,
        peak=1e-3,
        loss=squared_errors,
    )
    write_parts(model, out, vae)


def write(out: Path = PHANTOM, vae: Path = PHANTOM) -> None:
    """Write the newest state of a run, its average, to a checkpoint; the run may go on meanwhile.

    Args:
        out: the checkpoint folder; it holds text_encoder, the other parts are added.
        vae: the checkpoint folder whose vae to use.
    """
    model = build(UNET)
    print(f"the average of the weights after {take_average(model, STATE)} steps")
    write_parts(model, out, vae)


def write_parts(model: Listener, out: Path, vae: Path) -> None:
    write_part(out, "unet", UNET, [model.unet], "float16")
    write_json(out / "scheduler" / "scheduler_config.json", SCHEDULER)
    if vae != out:
        shutil.copytree(vae / "vae", out / "vae", dirs_exist_ok=True)
    print(f"saved {out / 'unet'}, {out / 'scheduler'} and {out / 'vae'}")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"train": train_unet, "write": write})
