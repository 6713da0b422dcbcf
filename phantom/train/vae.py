"""Train the phantom's image encoder and decoder: `python -m phantom.train.vae`, or train them on.

Loss: L1 + MSE + half the L1 of the gradients + a small weight of the KL divergence. The posterior
starts with a log-variance of −5, so that the decoder sees a signal from the first step on. One
picture in ten is cut from photographs (phantom/train/photographs.py), so that what is not of the
phantom's world comes back too. An interrupted run goes on from its last checkpoint when the same
command is given again.
"""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tyro
from keras import ops

from phantom.train.loop import PHANTOM, train
from phantom.train.photographs import cut, photographs
from phantom.world import SIDE, draw_scene, for_evaluation, render, scenes
from stable_diffusion_tf import precisions
from stable_diffusion_tf.checkpoint.folder import EXTRAS, open_part, read_json
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.write import write_part
from stable_diffusion_tf.config import VAEConfig, from_dict
from stable_diffusion_tf.vae import VAEDecoder, VAEEncoder, posterior

CONFIG = VAEConfig(
    sample_size=64, block_out_channels=(32, 48, 64), layers_per_block=1, norm_num_groups=16
)
KL_WEIGHT = 3e-5
PHOTOGRAPHS = 0.1  # of the pictures


class Autoencoder(keras.Model):
    """Encoder, a sample of the posterior, decoder; adds the weighted KL divergence to its loss.

    hardy: noise on the latent besides, as a share of each channel's deviation: what a UNet gets
    nearly right is then drawn nearly right.
    """

    def __init__(self, config: VAEConfig, seed: int = 0, hardy: float = 0.0):
        super().__init__(name="autoencoder")
        self.hardy = hardy
        self.encoder = VAEEncoder(config, name="vae_encoder")
        self.decoder = VAEDecoder(config, name="vae_decoder")
        self.noise = keras.random.SeedGenerator(seed)

    def build(self, *shapes):
        pass

    def call(self, images):
        mean, deviation = posterior(ops.cast(self.encoder(images), "float32"))
        noise = keras.random.normal(ops.shape(mean), seed=self.noise)
        variance = ops.square(deviation)
        kl = 0.5 * ops.mean(ops.square(mean) + variance - 1 - ops.log(variance))
        self.add_loss(KL_WEIGHT * kl)
        spread = ops.std(mean, axis=(0, 1, 2), keepdims=True)
        deviation = ops.sqrt(variance + ops.square(self.hardy * spread))
        return ops.cast(self.decoder(mean + deviation * noise), "float32")


def picture_loss(real, made):
    """L1 + MSE + half the L1 of the horizontal and vertical differences, per picture."""
    error = made - real
    across, down = error[:, :, 1:] - error[:, :, :-1], error[:, 1:] - error[:, :-1]
    edges = [ops.mean(ops.abs(e), axis=(1, 2, 3)) for e in (across, down)]
    return ops.mean(ops.abs(error) + ops.square(error), axis=(1, 2, 3)) + 0.25 * sum(edges)


def draw_batch(rng: np.random.Generator, batch: int = 16):
    """Newly drawn scenes and cuts of photographs, (batch, 64, 64, 3) float32 in [-1, 1], as
    input and as target."""
    real = rng.random(batch) < PHOTOGRAPHS
    images = np.stack([cut(rng, photographs(), SIDE) if r else picture(rng) for r in real])
    images = images.astype(np.float32) / 127.5 - 1
    return images, images


def picture(rng: np.random.Generator) -> np.ndarray:
    return render(draw_scene(rng))


def main(
    steps: int = 8000,
    seed: int = 0,
    precision: str = "mixed_bfloat16",
    out: Path = PHANTOM,
    start_from: Path | None = None,
    decoder_only: bool = False,
    hardy: float = 0.0,
) -> None:
    """Train the image encoder and decoder.

    Args:
        steps: steps in all, of 16 pictures each; a run that was interrupted goes on.
        seed: draws the scenes, the weights and the noise.
        precision: mixed_bfloat16 or float32.
        out: the checkpoint folder; the part goes to its subfolder vae.
        start_from: a checkpoint folder whose vae to train on; by default a fresh start.
        decoder_only: keep the encoder of start_from as it is, so that a UNet trained on its
            latents stays true while the pictures grow sharper.
        hardy: noise on the latent, as a share of its deviation, beside that of the posterior.
    """
    keras.utils.set_random_seed(seed)
    with precisions.precision(precision):
        model = Autoencoder(CONFIG, seed, hardy)
    model(keras.KerasTensor((None, 64, 64, 3)))
    start_quiet(model.encoder)
    if start_from:
        load(model.encoder, open_part(start_from, "vae"), EXTRAS["encoder"])
        load(model.decoder, open_part(start_from, "vae"), EXTRAS["decoder"])
        print(f"round trip {psnr_of(model):.2f} dB on held-out scenes to begin with")
    model.encoder.trainable = not decoder_only
    train(model, draw_batch, "vae", steps, seed, every=200, peak=8e-4, loss=picture_loss)
    config = replace(CONFIG, scaling_factor=scale_of(start_from) if decoder_only else centre(model))
    write_part(out, "vae", config, (model.encoder, model.decoder), "float16")
    print(f"saved {out / 'vae'}; round trip {psnr_of(model):.2f} dB on held-out scenes")


def scale_of(folder: Path) -> float:
    return from_dict(VAEConfig, read_json(folder / "vae" / "config.json")).scaling_factor


def centre(model: Autoencoder) -> float:
    """Give the latent channels mean 0 and one common deviation; returns 1 / that deviation.

    Both ends of the latent are 1×1 convolutions, so the change is folded into their weights and
    the pictures stay the same.
    """
    images = draw_batch(np.random.default_rng([1, 0]), 1024)[0]
    mean = model.encoder.predict(images, verbose=0)[..., :4].astype(np.float32)
    shift, spread = mean.mean((0, 1, 2)), mean.std((0, 1, 2))
    common = float(np.sqrt(np.mean(spread**2)))
    gain = common / spread  # latent' = gain · (latent − shift)
    into, out = model.encoder.quant_conv, model.decoder.post_quant_conv
    kernel, bias = (keras.ops.convert_to_numpy(w) for w in (into.kernel, into.bias))
    into.kernel.assign(np.concatenate([kernel[..., :4] * gain, kernel[..., 4:]], axis=-1))
    into.bias.assign(np.concatenate([(bias[:4] - shift) * gain, bias[4:] + 2 * np.log(gain)]))
    kernel, bias = (keras.ops.convert_to_numpy(w) for w in (out.kernel, out.bias))
    out.bias.assign(bias + shift @ kernel[0, 0])
    out.kernel.assign(kernel / gain[:, None])
    return 1 / common


def psnr_of(model: Autoencoder, number: int = 200) -> float:
    """The mean PSNR in dB of the round trip (posterior mean) over held-out scenes."""
    images = (
        np.stack([render(s) for s in scenes(2, number, for_evaluation)]) / np.float32(127.5) - 1
    )
    latents = model.encoder.predict(images, verbose=0)[..., :4]
    made = np.clip(model.decoder.predict(latents, verbose=0), -1, 1).astype(np.float32)
    return float(np.mean(-10 * np.log10(np.mean((made - images) ** 2, axis=(1, 2, 3)) / 4)))


def start_quiet(encoder: VAEEncoder) -> None:
    """Log-variance −5 everywhere, small weights for the mean: quiet noise from the start."""
    kernel, bias = encoder.quant_conv.kernel, encoder.quant_conv.bias
    latent = kernel.shape[-1] // 2
    weights = keras.ops.convert_to_numpy(kernel).copy()
    weights[..., latent:] *= 0.01
    kernel.assign(weights)
    bias.assign(np.repeat([0.0, -5.0], latent))


if __name__ == "__main__":
    tyro.cli(main)
