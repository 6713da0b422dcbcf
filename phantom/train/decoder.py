"""Train the phantom's image decoder on, alone: `python -m phantom.train.decoder`.

The encoder stays as it is, so a diffusion model trained on its latents stays true while the
pictures grow sharper. Starts from the shipped checkpoint; an interrupted run goes on from its
last state when the same command is given again.
"""

from pathlib import Path

import keras
import tyro

from phantom.train.loop import PHANTOM, train
from phantom.train.vae import Autoencoder, draw_batch, picture_loss, psnr_of, write_vae
from stable_diffusion_tf import precisions
from stable_diffusion_tf.checkpoint.folder import EXTRAS, open_part, read_json
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.config import VAEConfig, from_dict


def main(
    steps: int = 2000, seed: int = 1, precision: str = "mixed_bfloat16", out: Path = PHANTOM
) -> None:
    """Train the image decoder on, the encoder kept as it is.

    Args:
        steps: steps of this stage in all, of 16 pictures each; an interrupted run goes on.
        seed: draws the scenes and the noise.
        precision: mixed_bfloat16 or float32.
        out: the checkpoint folder, read and written.
    """
    keras.utils.set_random_seed(seed)
    config = from_dict(VAEConfig, read_json(out / "vae" / "config.json"))
    with precisions.precision(precision):
        model = Autoencoder(config)
    model(keras.KerasTensor((None, config.sample_size, config.sample_size, 3)))
    load(model.encoder, open_part(out, "vae"), EXTRAS["encoder"])
    load(model.decoder, open_part(out, "vae"), EXTRAS["decoder"])
    model.encoder.trainable = False
    print(f"round trip {psnr_of(model):.2f} dB on held-out scenes to begin with")
    train(model, draw_batch, "decoder", steps, seed, every=200, peak=5e-4, loss=picture_loss)
    write_vae(out, model, config)


if __name__ == "__main__":
    tyro.cli(main)
