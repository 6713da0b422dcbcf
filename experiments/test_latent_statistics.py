"""Where does the scaling factor of the latents come from, and are they Gaussian?

The UNet is to start from standard Gaussian noise, so latents are multiplied by one number, the
scaling factor, that brings their standard deviation to 1: one over that of all their values, over
positions and channels (for SD 1.x 0.18215, found on the first batch of its training: diffusers
issue 437). Here many pictures are encoded, a sample of the posterior each, and the number is found
again, with a 95 % interval over which pictures are in the set.

The small panels show the raw values of each channel against the Gaussian of the same mean and
standard deviation: one number scales them, but it cannot make them Gaussian (skewness and excess
kurtosis, 0 of a Gaussian, are in the table). SD 1.x's channels have means of 5.81, 3.25, 0.12,
−2.15 and standard deviations of 4.17, 4.62, 3.71, 3.28 (EDM2's StabilityVAEEncoder); the phantom's
were brought to mean 0 and one standard deviation when it was made, which SD's were not.

The control encodes pictures of pure noise, which the encoder was never given: their factor must be
another, or the number would say nothing about the pictures.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import stable_diffusion_tf
from experiments.figures import latent_statistics as figures
from phantom.world import render_all, scenes
from stable_diffusion_tf.errors import UsageError
from xray import script
from xray.measure import Estimate, normality
from xray.options import Picture, Seeded, check_range
from xray.pictures import read_pictures
from xray.report import Control, Report

LEAST, MOST = 8, 1024  # pictures
DRAWS = 1000  # of the pictures, with replacement, for an interval
WRONG = "noise has the factor of the pictures, as far as so few can tell"


@dataclass(frozen=True)
class Options(Seeded):
    picture: Picture = None
    """a folder of pictures, cropped to squares; by default scenes of the phantom's world."""
    number: int = 128
    """how many of them, 8 to 1024."""

    def check(self) -> None:
        super().check()
        check_range("number", self.number, LEAST, MOST, 128)
        if self.picture and not self.picture.is_dir():
            raise UsageError(f"there is no folder {self.picture}; name one with {LEAST} pictures")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    rng = np.random.default_rng(options.seed)
    pictures = pictures_in(options.picture, sd.size, options.number, options.seed)
    noise = rng.integers(0, 256, pictures.shape, np.uint8)
    latents = {"pictures": encode(sd, pictures, rng), "pure noise": encode(sd, noise, rng)}
    found = {name: find_factor(y, rng) for name, y in latents.items()}
    factor, control = found.values()
    own = sd.vae_config.scaling_factor
    finding = (
        f"{len(pictures)} pictures give a scaling factor of {factor}; the model's is {own:.4f}."
    )
    forms = [normality(channel) for channel in np.moveaxis(latents["pictures"], -1, 0)]
    apart = max(factor.low, control.low) > min(factor.high, control.high)
    return Report(
        finding,
        Control("pictures of pure noise give", control, apart, WRONG),
        numbers={"scaling factor": factor, "the model's": own},
        table=[
            {"channel": f"{i}"} | dict(list(f._asdict().items())[:4]) for i, f in enumerate(forms)
        ],
        figure=figures.latent_sheet(latents, found, own, finding),
        tensors=latents,
    )


def pictures_in(folder: Path | None, size: int, number: int, seed: int) -> np.ndarray:
    """(n, size, size, 3) uint8: the folder's first, by name; where there is none, scenes."""
    if folder is None:
        return render_all(scenes(seed, number), size)
    found = read_pictures(folder, size, number)
    if len(found) < LEAST:
        raise UsageError(f"{folder} holds {len(found)} pictures; put {LEAST} or more there")
    return found


def encode(
    sd: "stable_diffusion_tf.StableDiffusion", pictures: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A sample of each picture's posterior, not scaled, (n, h, w, c); large pictures fit."""
    scaled = [sd.encode_image(picture[None], rng) for picture in pictures]
    return np.concatenate(scaled) / np.float32(sd.vae_config.scaling_factor)


def find_factor(latents: np.ndarray, rng: np.random.Generator) -> Estimate:
    """1 / standard deviation of all values of (n, h, w, c), with the bootstrap's interval over
    pictures, whose positions go together (Efron & Tibshirani, 1993, chapter 13)."""
    values = latents.reshape(len(latents), -1).astype(np.float64)
    first, second = values.mean(axis=1), np.mean(values**2, axis=1)
    drawn = rng.integers(0, len(values), (DRAWS, len(values)))
    spread = np.sqrt(second[drawn].mean(axis=1) - first[drawn].mean(axis=1) ** 2)
    return Estimate(float(1 / values.std()), *np.quantile(1 / spread, [0.025, 0.975]), len(values))


if __name__ == "__main__":
    script.run_experiment(main, Options)
