"""Train the UNet of the phantom with registers: `python -m phantom.train.diffusion`.

ε-prediction on SD's noise schedule (Ho et al., arXiv 2006.11239) with 10 % empty captions for
guidance (Ho & Salimans, arXiv 2207.12598) and the loss weight min(γ/SNR, ceiling), which with a
ceiling of 1 is that of Hang et al. (arXiv 2303.09556). A higher one dwells on the noisiest
timesteps, where places are decided: there the noise is nearly all of x, and says little of the
picture. The text encoder stays as `phantom.train.text` taught it. The scenes are encoded once and
kept; an interrupted run goes on from its last checkpoint when the same command is given again.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tyro
from keras import ops

from phantom.train.loop import REGISTERS, STATES, train
from phantom.train.text import TEXT, number_words, read_text_encoder
from phantom.world import OF_REGISTERS, THINGS, render, scenes
from stable_diffusion_tf import precisions, scheduler
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
from stable_diffusion_tf.unet import UNet
from stable_diffusion_tf.vae import build_encoder, posterior

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
    """{x (b, h, w, 4), t (b,), ids (b, 77)} → the noise in x."""

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


def encode_scenes(folder: Path, number: int, seed: int, things: tuple[str, ...] = THINGS) -> Data:
    """The training scenes through the image encoder; kept on disk for the next run with the same
    encoder."""
    encoder_file = (folder / "vae" / FILES["vae"]).read_bytes()
    source = zlib.crc32(",".join(things).encode(), zlib.crc32(encoder_file))
    cache = STATES / f"latents-{number}-{seed}-{source:08x}.npz"
    if not cache.exists():
        config = from_dict(VAEConfig, read_json(folder / "vae" / "config.json"))
        encoder = build_encoder(config)
        load(encoder, open_part(folder, "vae"), ignore=EXTRAS["encoder"])
        drawn = scenes(seed, number, things=things)
        captions, empty, words = number_words(drawn)
        latents = np.concatenate([encode(encoder, drawn[i : i + 64]) for i in range(0, number, 64)])
        latents = (latents * config.scaling_factor).astype(np.float16)
        STATES.mkdir(exist_ok=True)
        captions = captions.astype(np.uint16)
        np.savez(cache, latents=latents, captions=captions, words=words, empty=empty)
    return Data(**np.load(cache))


def encode(encoder: keras.Model, some: list) -> np.ndarray:
    images = np.stack([render(s) for s in some]).astype(np.float32) / 127.5 - 1
    return ops.convert_to_numpy(posterior(encoder.predict_on_batch(images))[0])


def draw_batch(data: Data, alphas: np.ndarray, weigh: Weigh, since: int, rng: np.random.Generator):
    """A batch as fit wants it, from timestep `since` on: the noised latents, the noise, the
    weight of each."""
    rows = rng.integers(len(data.latents), size=BATCH)
    noised, noise, weight = add_noise(data.latents[rows], alphas, weigh, since, rng)
    ids = data.captions[rows].astype(np.int32)
    ids[rng.random(BATCH) < EMPTY_CAPTIONS] = data.empty
    return noised | {"ids": ids}, noise, weight


def add_noise(
    latents: np.ndarray, alphas: np.ndarray, weigh: Weigh, since: int, rng: np.random.Generator
):
    """{x, t} of a batch of latents, from timestep `since` on, the noise, the weight of each."""
    x0, number = latents.astype(np.float32), len(latents)
    noise = rng.standard_normal(x0.shape, dtype=np.float32)
    # evenly spread over the timesteps, so that the loss of a batch says more
    shares = (rng.random() + rng.permutation(number)) / number
    t = (since + shares * (len(alphas) - since)).astype(np.int32)
    weight = weigh(scheduler.snr(t, alphas)).astype(np.float32)[:, None, None]  # per cell
    x = scheduler.add_noise(x0, noise, t, alphas).astype(np.float32)
    return {"x": x, "t": t}, noise, weight


def start_quiet(unet: UNet) -> None:
    """Every residual branch and the output begin at zero."""
    for variable in unet.trainable_variables:
        if variable.path.rsplit("/", 2)[-2] in ("conv2", "proj_out", "conv_out"):
            variable.assign(ops.zeros_like(variable))


def main(
    steps: int = 20000,
    scene_count: int = 24576,
    seed: int = 0,
    precision: str = "mixed_bfloat16",
    out: Path = REGISTERS,
    start_from: Path | None = None,
    gamma: float = 2.0,
    ceiling: float = 20.0,
    since: int = 0,
) -> None:
    """Train the UNet on the latents of the trained image encoder.

    Args:
        steps: steps in all, of 32 scenes each; a run that was interrupted goes on.
        scene_count: scenes to draw and encode.
        seed: draws the scenes, the weights and the noise.
        precision: mixed_bfloat16 or float32.
        out: the checkpoint folder; it holds vae and text_encoder, unet is added.
        start_from: a checkpoint folder whose unet to train on; by default a fresh start.
        gamma: of the loss weight.
        ceiling: of the loss weight.
        since: the least noisy timestep to train on, 0 to 999.
    """
    keras.utils.set_random_seed(seed)
    data = encode_scenes(out, scene_count, seed, OF_REGISTERS)
    with precisions.precision(precision):
        model = Denoiser(replace(TEXT, vocab_size=len(data.words)), UNET)
    side = UNET.sample_size
    model(
        {
            "x": keras.KerasTensor((None, side, side, 4)),
            "t": keras.KerasTensor((None,), dtype="int32"),
            "ids": keras.KerasTensor((None, 77), dtype="int32"),
        }
    )
    read_text_encoder(out, model.text_encoder, data.words)
    model.text_encoder.trainable = False
    if start_from:
        load(model.unet, open_part(start_from, "unet"), EXTRAS["unet"])
    else:
        start_quiet(model.unet)
    alphas = scheduler.alphas_cumprod()

    def weigh(snr: np.ndarray) -> np.ndarray:
        return np.minimum(gamma / snr, ceiling)

    train(
        model,
        lambda rng: draw_batch(data, alphas, weigh, since, rng),
        "diffusion",
        steps,
        seed,
        every=250,
        peak=1e-3,
        loss="mse",
    )
    write_part(out, "unet", UNET, [model.unet], "float16")
    write_json(out / "scheduler" / "scheduler_config.json", SCHEDULER)
    print(f"saved {out / 'unet'} and {out / 'scheduler'}")


if __name__ == "__main__":
    tyro.cli(main)
