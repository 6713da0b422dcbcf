"""Where does the scaling factor of the latents come from, and are they normal?

The UNet is to start from standard normal noise, so latents are multiplied by one number that
brings them to its deviation: one over the deviation of all their values, over cells and channels
(for SD 1.x 0.18215, found on the first batch of its training: diffusers issue 437). Here many
pictures are encoded, a sample of the posterior each, and the number is found again; its 95 %
interval is over which pictures are in the set. The panels show the raw values of each channel
against the normal distribution of the same mean and deviation: one number scales them, but it
cannot make them normal (the Jarque-Bera statistic takes cells to be independent, which neighbours
are not; skewness and kurtosis tell without that). SD 1.x's channels have means of 5.81, 3.25, 0.12,
−2.15 and deviations of 4.17, 4.62, 3.71, 3.28 (EDM2's StabilityVAEEncoder); the phantom's were
brought to mean 0 and one deviation when it was made, which SD's were not.

The control encodes pictures of pure noise, which the encoder never saw: their scale must be
another, or the number would say nothing about the pictures.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import latent_statistics as figures
from phantom.world import render, scenes
from stable_diffusion_tf.errors import UsageError
from xray import measure, script
from xray.pictures import read_pictures

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

LEAST, MOST = 8, 1024  # pictures
DRAWS = 1000  # of the pictures, with replacement, for an interval


def main(
    images: Annotated[Path | None, tyro.conf.Positional] = None,
    /,
    number: int = 128,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Mean, deviation and form of each latent channel over many pictures.

    Args:
        images: a folder of pictures; by default scenes of the phantom's world.
        number: how many of them, 8 to 1024.
        seed: draws the scenes, the samples and the control's noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    check_input(images, number, seed)
    sd = script.load_model(weights)
    rng = np.random.default_rng(seed)
    pictures = pictures_in(images, sd.size, number, seed)
    noise = rng.integers(0, 256, pictures.shape, np.uint8)
    latents = {"pictures": encode(sd, pictures, rng), "noise": encode(sd, noise, rng)}
    scales = {name: find_scale(y, rng) for name, y in latents.items()}
    own = sd.vae_config.scaling_factor
    folder = script.make_folder(out, "test_latent_statistics", images.stem if images else "scenes")
    with script.saving_into(folder):
        title = finding(latents["pictures"], scales["pictures"][0], own)
        sheet = figures.latent_sheet(latents, scales, own, title)
        script.save_figure(sheet, folder / "statistics.png")
        save_file(latents, folder / "latents.safetensors")
    tell(latents["pictures"])
    for name, (scale, low, high) in scales.items():
        print(f"scale of {name}: {scale:.4f} ({low:.4f} to {high:.4f}); the model's: {own:.4f}")
    script.conclude(
        title,
        f"pictures of pure noise have a scale of {scales['noise'][0]:.4f}",
        picture=folder / "statistics.png",
        tensors=folder / "latents.safetensors",
    )
    check_control(scales["pictures"], scales["noise"])


def check_input(images: Path | None, number: int, seed: int) -> None:
    script.check_range("number", number, LEAST, MOST, 128)
    script.check_seed(seed)
    if images is not None and not images.is_dir():
        raise UsageError(f"there is no folder {images}; name one with {LEAST} pictures or more")


def pictures_in(images: Path | None, size: int, number: int, seed: int) -> np.ndarray:
    """(n, size, size, 3) uint8: the folder's first, by name; where there is none, scenes."""
    if images is None:
        return np.stack([render(scene) for scene in scenes(seed, number)])
    found = read_pictures(images, size, number)
    if len(found) < LEAST:
        raise UsageError(f"{images} holds {len(found)} pictures; put {LEAST} or more there")
    return found


def encode(sd: "StableDiffusion", pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sample of each picture's posterior, not scaled, (n, h, w, c); one by one, so that large
    pictures fit."""
    scaled = [sd.encode_image(picture[None], rng) for picture in pictures]
    return np.concatenate(scaled) / np.float32(sd.vae_config.scaling_factor)


def find_scale(latents: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """1 / deviation of all values of (n, h, w, c), and the ends of its 95 % interval: the
    bootstrap of Efron & Tibshirani (1993), chapter 13, over pictures, whose cells go together."""
    values = latents.reshape(len(latents), -1).astype(np.float64)
    first, second = values.mean(axis=1), np.mean(values**2, axis=1)
    drawn = rng.integers(0, len(values), (DRAWS, len(values)))
    spread = np.sqrt(second[drawn].mean(axis=1) - first[drawn].mean(axis=1) ** 2)
    low, high = np.quantile(1 / spread, [0.025, 0.975])
    return float(1 / values.std()), float(low), float(high)


def check_control(pictures: tuple[float, float, float], noise: tuple[float, float, float]) -> None:
    """Raises SystemExit where the two intervals have a number in common."""
    if max(pictures[1], noise[1]) <= min(pictures[2], noise[2]):
        raise SystemExit(
            "the control failed: noise has the scale of the pictures, as far as so few can tell"
        )


# --- telling -----------------------------------------------------------------------------------


def tell(latents: np.ndarray) -> None:
    print(f"{len(latents)} pictures, raw latents; a normal one has no skewness and no kurtosis")
    for i in range(latents.shape[-1]):
        form = measure.normality(latents[..., i])
        print(
            f"  channel {i}: mean {form.mean:+.2f}, deviation {form.std:.2f}, "
            f"skewness {form.skewness:+.2f}, kurtosis {form.excess_kurtosis:+.2f}, "
            f"Jarque-Bera {form.jarque_bera:.0f} (normal: below {form.critical:.0f})"
        )


def finding(latents: np.ndarray, scale: float, own: float) -> str:
    forms = [measure.normality(latents[..., i]) for i in range(latents.shape[-1])]
    normal = sum(form.jarque_bera < form.critical for form in forms)
    return (
        f"{len(latents)} pictures give a scale of {scale:.4f}, "
        f"{100 * abs(scale / own - 1):.1f} % from the model's {own:.4f}; "
        f"{normal} of {len(forms)} channels are normal"
    )


if __name__ == "__main__":
    script.run(main)
