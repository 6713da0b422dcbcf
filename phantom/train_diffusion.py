"""Train the phantom's text encoder and UNet: `python -m phantom.train_diffusion`.

ε-prediction on SD's noise schedule (Ho et al., arXiv 2006.11239) with 10 % empty captions for
guidance (Ho & Salimans, arXiv 2207.12598) and the loss weight min(γ/SNR, ceiling), which with a
ceiling of 1 is that of Hang et al. (arXiv 2303.09556). A higher one dwells on the noisiest
timesteps, where places are decided: there the noise is nearly all of x, and says little of the
picture. The scenes are encoded once and kept; an interrupted run goes on from its last checkpoint
when the same command is given again.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tyro
from keras import ops

from phantom.training import PHANTOM, STATES, train
from phantom.world import render, scenes
from stable_diffusion_tf import layers, scheduler
from stable_diffusion_tf.checkpoint.folder import (
    EXTRAS,
    FILES,
    open_part,
    read_json,
)
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.write import SCHEDULER, write_json, write_part
from stable_diffusion_tf.clip import CLIPText
from stable_diffusion_tf.config import CLIPTextConfig, UNetConfig, VAEConfig, from_dict
from stable_diffusion_tf.tokenizer import Tokenizer
from stable_diffusion_tf.unet import UNet
from stable_diffusion_tf.vae import build_encoder, posterior

TEXT = CLIPTextConfig(
    hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4
)
UNET = UNetConfig(
    sample_size=16,
    block_out_channels=(48, 96, 160),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    attention_head_dim=4,
    cross_attention_dim=128,
    norm_num_groups=16,
)
BATCH = 32
EMPTY_CAPTIONS = 0.1

Weigh = Callable[[np.ndarray], np.ndarray]  # SNR (b,) → weight of the loss (b,)


class Denoiser(keras.Model):
    """{x (b, h, w, 4), t (b,), ids (b, 77)} → the noise in x; text encoder and UNet together."""

    def __init__(self, text: CLIPTextConfig, unet: UNetConfig):
        super().__init__(name="denoiser")
        self.text_encoder = CLIPText(text)
        self.unet = UNet(unet)

    def build(self, *shapes):
        pass

    def call(self, inputs):
        noise = self.unet(inputs["x"], inputs["t"], self.text_encoder(inputs["ids"]))
        return ops.cast(noise, "float32")


@dataclass(frozen=True)
class Data:
    """Encoded scenes: latents (n, 16, 16, 4) float16, scaled; captions as rows of `words`, the
    token ids that occur; `empty` is the empty caption."""

    latents: np.ndarray
    captions: np.ndarray  # (n, 77) uint16
    words: np.ndarray  # (w,) int32, ascending
    empty: np.ndarray  # (77,)


def encode_scenes(folder: Path, number: int, seed: int) -> Data:
    """The training scenes through the image encoder; kept on disk for the next run with the same
    encoder."""
    encoder_file = (folder / "vae" / FILES["vae"]).read_bytes()
    cache = STATES / f"latents-{number}-{seed}-{zlib.crc32(encoder_file):08x}.npz"
    if not cache.exists():
        config = from_dict(VAEConfig, read_json(folder / "vae" / "config.json"))
        encoder = build_encoder(config)
        load(encoder, open_part(folder, "vae"), ignore=EXTRAS["encoder"])
        drawn = scenes(seed, number)
        ids = Tokenizer()([s.caption for s in drawn] + [""])
        words, rows = np.unique(ids, return_inverse=True)
        rows = rows.reshape(ids.shape).astype(np.uint16)
        latents = np.concatenate([encode(encoder, drawn[i : i + 64]) for i in range(0, number, 64)])
        latents = (latents * config.scaling_factor).astype(np.float16)
        STATES.mkdir(exist_ok=True)
        np.savez(cache, latents=latents, captions=rows[:-1], words=words, empty=rows[-1])
    return Data(**np.load(cache))


def encode(encoder: keras.Model, some: list) -> np.ndarray:
    images = np.stack([render(s) for s in some]).astype(np.float32) / 127.5 - 1
    return ops.convert_to_numpy(posterior(encoder.predict_on_batch(images))[0])


def draw_batch(data: Data, alphas: np.ndarray, weigh: Weigh, rng: np.random.Generator):
    """A batch as fit wants it: the noised latents, the noise, the weight of each."""
    rows = rng.integers(len(data.latents), size=BATCH)
    x0 = data.latents[rows].astype(np.float32)
    noise = rng.standard_normal(x0.shape, dtype=np.float32)
    # evenly spread over the timesteps, so that the loss of a batch says more
    t = ((rng.random() + rng.permutation(BATCH)) * len(alphas) / BATCH).astype(np.int32)
    t = t % len(alphas)
    ids = data.captions[rows].astype(np.int32)
    ids[rng.random(BATCH) < EMPTY_CAPTIONS] = data.empty
    weight = weigh(scheduler.snr(t, alphas)).astype(np.float32)[:, None, None]  # per cell
    x = scheduler.add_noise(x0, noise, t, alphas).astype(np.float32)
    return {"x": x, "t": t, "ids": ids}, noise, weight


def start_quiet(unet: UNet) -> None:
    """Every residual branch and the output begin at zero."""
    for variable in unet.trainable_variables:
        if variable.path.rsplit("/", 2)[-2] in ("conv2", "proj_out", "conv_out"):
            variable.assign(ops.zeros_like(variable))


def read_parts(folder: Path, model: Denoiser, words: np.ndarray) -> None:
    """Take over the weights of a checkpoint; of its vocabulary, the rows of `words`."""
    load(model.unet, open_part(folder, "unet"), EXTRAS["unet"])
    whole = layers.build(CLIPText(TEXT), keras.KerasTensor((1, 77), dtype="int32"))
    load(whole, open_part(folder, "text_encoder"), EXTRAS["text_encoder"])
    for mine, theirs in zip(model.text_encoder.weights, whole.weights, strict=True):
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


def main(
    steps: int = 20000,
    scene_count: int = 24576,
    seed: int = 0,
    precision: str = "mixed_bfloat16",
    out: Path = PHANTOM,
    start_from: Path | None = None,
    gamma: float = 5.0,
    ceiling: float = 1.0,
) -> None:
    """Train the text encoder and the UNet on the latents of the trained image encoder.

    Args:
        steps: steps in all, of 32 scenes each; a run that was interrupted goes on.
        scene_count: scenes to draw and encode.
        seed: draws the scenes, the weights and the noise.
        precision: mixed_bfloat16 or float32.
        out: the checkpoint folder; it holds vae, the parts unet and text_encoder are added.
        start_from: a checkpoint folder whose unet and text_encoder to train on; by default a
            fresh start.
        gamma: of the loss weight.
        ceiling: of the loss weight.
    """
    keras.utils.set_random_seed(seed)
    data = encode_scenes(out, scene_count, seed)
    with layers.precision(precision):
        model = Denoiser(replace(TEXT, vocab_size=len(data.words)), UNET)
    side = UNET.sample_size
    model(
        {
            "x": keras.KerasTensor((None, side, side, 4)),
            "t": keras.KerasTensor((None,), dtype="int32"),
            "ids": keras.KerasTensor((None, 77), dtype="int32"),
        }
    )
    if start_from:
        read_parts(start_from, model, data.words)
    else:
        start_quiet(model.unet)
    alphas = scheduler.alphas_cumprod()

    def weigh(snr: np.ndarray) -> np.ndarray:
        return np.minimum(gamma / snr, ceiling)

    train(
        model,
        lambda rng: draw_batch(data, alphas, weigh, rng),
        "diffusion",
        steps,
        seed,
        every=250,
        peak=1e-3,
        loss="mse",
    )
    write_text_encoder(out, model.text_encoder, data.words)
    write_part(out, "unet", UNET, [model.unet], "float16")
    write_json(out / "scheduler" / "scheduler_config.json", SCHEDULER)
    print(f"saved {out / 'text_encoder'}, {out / 'unet'} and {out / 'scheduler'}")


if __name__ == "__main__":
    tyro.cli(main)
