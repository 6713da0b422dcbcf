"""What does the image encoder keep of a photograph, and what does it lose?

The encoder turns each patch of pixels into a few numbers, and for each number says how sure it is:
a mean and a deviation. Decoding the means gives the picture back, less what was lost. The sheet
shows the photograph, its round trip and where they differ (top), the mean of each latent channel
(middle: blurred colour and edges, each channel its own) and its deviation (bottom: small where the
encoder is sure). The numbers are PSNR and SSIM of the round trip; the control is the same latent
with its cells shuffled, whose round trip must be far worse.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro
from matplotlib import cbook
from safetensors.numpy import save_file

from experiments.figures import image_encoder as figures
from stable_diffusion_tf.images import to_model
from xray import measure, script
from xray.pictures import find_pictures, names_for, read_image

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion


def main(
    image: Annotated[Path | None, tyro.conf.Positional] = None,
    /,
    size: int = 256,
    weights: str = "phantom",
    precision: Literal["float32", "bfloat16", "float16-storage"] = "float32",
    out: Path = Path("outputs"),
) -> None:
    """A photograph, or each in a folder, through the image encoder and back.

    Args:
        image: a picture or a folder of pictures; by default Grace Hopper, from matplotlib.
        size: pixels; the picture is cropped to a square and resized to it.
        weights: a model's name, or its folder or file.
        precision: of the numbers; the latter two take half the memory.
        out: the folder to save into.
    """
    paths = find_pictures(image or sample())
    names = names_for(paths, ".safetensors")
    images = np.stack([read_image(path, size) for path in paths])
    sd = script.load_model(weights, precision)
    images = to_model(images, sd.vae_config.factor)
    for part in ("encoder", "decoder"):
        sd.network(part)  # what is wrong with it is said before anything is written
    folder = script.make_folder(out, "test_image_encoder", (image or sample()).stem)
    with script.saving_into(folder):
        each = zip(paths, images, names, strict=True)
        scores = np.array([examine(sd, path, one[None], folder / name) for path, one, name in each])
    print(f"peak memory {script.peak_memory()} GB")
    psnr, ssim, chance = scores.mean(0)
    stem = folder / (names[0] if len(paths) == 1 else "*")
    script.conclude(
        f"{named(paths)} back with {psnr:.1f} dB PSNR and {ssim:.2f} SSIM",
        f"the latent with its cells shuffled: {chance:.1f} dB",
        picture=Path(f"{stem}.png"),
        tensors=Path(f"{stem}.safetensors"),
    )
    if not np.all(scores[:, 0] > scores[:, 2]):
        raise SystemExit("the control failed: a shuffled latent came back as well as the true one")


def examine(sd: "StableDiffusion", path: Path, image: np.ndarray, stem: Path) -> tuple:
    """Encode, decode, measure, save; PSNR and SSIM of the round trip, PSNR of the control.

    image: (1, H, W, 3) in [-1, 1]. stem: where it goes, without a suffix.
    """
    scale = sd.vae_config.scaling_factor
    mean, deviation = (scale * y for y in sd.encode_posterior(image))
    back, control = sd.decode_latent(mean), sd.decode_latent(shuffled(mean))
    psnr, ssim = measure.psnr(image, back)[0], measure.ssim(image, back)[0]
    chance = measure.psnr(image, control)[0]
    fewer = image.size / mean.size
    title = (
        f"{path.name}: {psnr:.1f} dB PSNR, {ssim:.2f} SSIM, from {fewer:.0f} times fewer numbers"
    )
    figure = figures.encoder_sheet(image[0], back[0], mean[0], deviation[0], title)
    script.save_figure(figure, Path(f"{stem}.png"))
    arrays = {"image": image, "mean": mean, "deviation": deviation, "round_trip": back}
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, f"{stem}.safetensors")
    print(f"{path.name}: PSNR {psnr:.2f} dB, SSIM {ssim:.3f} (shuffled: {chance:.2f} dB)")
    for i in range(mean.shape[-1]):
        values = mean[..., i]
        print(
            f"  channel {i}: mean {values.mean():+.2f}, deviation over cells {values.std():.2f}, "
            f"posterior deviation {deviation[..., i].mean():.3f}"
        )
    return psnr, ssim, chance


def named(paths: list[Path]) -> str:
    return f"{paths[0].name} comes" if len(paths) == 1 else f"{len(paths)} pictures come"


def shuffled(latent: np.ndarray) -> np.ndarray:
    """The same cells (1, h, w, 4) in a random order."""
    cells = latent.reshape(-1, latent.shape[-1])
    return np.random.default_rng(0).permutation(cells).reshape(latent.shape)


def sample() -> Path:
    """The photograph that comes with matplotlib: Grace Hopper, 1984, US Navy, public domain."""
    return Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


if __name__ == "__main__":
    script.run(main)
