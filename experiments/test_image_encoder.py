"""What does the image encoder keep of a photograph, and what does it lose?

The encoder turns each patch of pixels into a few numbers, and says of each how sure it is: a
posterior with a mean and a standard deviation (Kingma & Welling, arXiv 1312.6114). Decoding the
means gives the picture back, less what was lost. The sheet shows the photograph, its round trip and
where they differ (top), the posterior mean of each latent channel (middle: blurred colour and
edges, each channel its own) and its standard deviation (bottom: small where the encoder is sure).

The numbers are PSNR and SSIM of the round trip, over a folder's pictures with 95 % intervals. The
control is the same latent with its positions shuffled, whose round trip must be worse.
"""

from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import image_encoder as figures
from stable_diffusion_tf.images import to_model
from xray import options, script
from xray.measure import mean_of, psnr, ssim
from xray.options import Picture
from xray.pictures import find_pictures, names_for, photograph, read_image
from xray.report import Control, Report


@dataclass(frozen=True)
class Options(options.Options):
    picture: Picture = None
    """a picture or a folder of pictures; by default Grace Hopper, from matplotlib."""
    size: int = 256
    """pixels: each is cropped to its middle square and resized to it."""


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    paths = find_pictures(options.picture or photograph())
    names = names_for(paths, "sheet-.png")
    images = np.stack([read_image(path, options.size) for path in paths])
    images = to_model(images, sd.vae_config.factor)
    arrays = [examine(sd, image[None]) for image in images]
    back, shuffled = (
        np.concatenate([one[k] for one in arrays]) for k in ("round_trip", "shuffled")
    )
    scores = {"PSNR": psnr(images, back), "SSIM": ssim(images, back)}
    scores["PSNR, shuffled"] = psnr(images, shuffled)
    table = [
        {"picture": path.name}
        | {
            name: mean_of(score[i : i + 1], "dB" * (name != "SSIM"))
            for name, score in scores.items()
        }
        for i, path in enumerate(paths)
    ]
    mean = {name: mean_of(score, "dB" * (name != "SSIM")) for name, score in scores.items()}
    fewer = images[0].size / arrays[0]["mean"].size
    what = f"{paths[0].name} comes" if len(paths) == 1 else f"{len(paths)} pictures come"
    finding = f"{what} back with {mean['PSNR']} PSNR from {fewer:.0f} times fewer numbers."
    titles = [f"{row['picture']}: {row['PSNR']} PSNR, {row['SSIM']} SSIM" for row in table]
    sheets = [
        figures.encoder_sheet({name: array[0] for name, array in one.items()}, title)
        for one, title in zip(arrays, titles, strict=True)
    ]
    return Report(
        finding,
        Control(
            "the latent with its positions shuffled",
            mean["PSNR, shuffled"],
            np.all(scores["PSNR"] > scores["PSNR, shuffled"]),
            "a shuffled latent came back as well as the true one",
        ),
        numbers=mean,
        table=table,
        figure=sheets[0],
        tensors={
            f"{name}.{k}": array
            for name, one in zip(names, arrays, strict=True)
            for k, array in one.items()
        },
        pictures={
            f"sheet-{name}": sheet for name, sheet in zip(names[1:], sheets[1:], strict=True)
        },
    )


def examine(sd: "stable_diffusion_tf.StableDiffusion", image: np.ndarray) -> dict[str, np.ndarray]:
    """An image (1, H, W, 3) in [-1, 1], its scaled posterior, and what decoding it gives."""
    mean, std = (sd.vae_config.scaling_factor * y for y in sd.encode_posterior(image))
    places = mean.reshape(-1, mean.shape[-1])
    shuffled = np.random.default_rng(0).permutation(places).reshape(mean.shape)
    back, other = sd.decode_latent(mean), sd.decode_latent(shuffled)
    return {"image": image, "mean": mean, "std": std, "round_trip": back, "shuffled": other}


if __name__ == "__main__":
    script.run_experiment(main, Options)
