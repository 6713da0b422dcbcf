"""How much noise in the latent does the decoder tolerate?

A picture is encoded, and a share of the positions of its latent, chosen at random and rounded to
whole positions, is replaced: latent·(1 − mask) + amplitude·σ·noise·mask, where the mask takes all
channels of a position, the noise is standard Gaussian and σ is the standard deviation of the
latents' values. An amplitude of 0 puts zeros there, 1 noise as strong as the latent, 4 far more
than the decoder was ever given. A larger share takes the positions of the smaller ones and more,
and the same noise grows with the amplitude. Rows are shares and columns amplitudes, of the pictures
as of their PSNR in dB against the picture that was encoded, a mean over pictures.

The number is the share that costs 3 dB, which doubles the squared error: found for each picture,
straight between the shares that were tried, with its 95 % interval. It is small, since a clean
latent has no spare copy of a position; the amplitude of 0 tells how much is lost by what is
missing, and not by noise. Holes do not stay where they are: the brighter the noise, the more it
tints the whole picture, over which the decoder normalises. No paper gives these numbers. A position
of the phantom's latent is 4 pixels wide, of SD 1.x's 8.

The control: a share of 0 must give the plain round trip, bit for bit, whatever the amplitude.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import stable_diffusion_tf
from experiments.figures import image_decoder as figures
from experiments.figures.image_decoder import Sweep
from phantom.world import new_scenes
from stable_diffusion_tf.images import to_model
from xray import script
from xray.measure import mean_of, psnr
from xray.methods import latent_noise
from xray.methods.drawing import decode, encode
from xray.options import Picture, Seeded, check_range
from xray.pictures import read_pictures
from xray.report import Control, Report

COSTS = "share that costs 3 dB"
LEAST, MOST = 2, 256  # pictures
LOSS = 10 * np.log10(2)  # dB that are lost where the squared error is doubled
WRONG = "nothing was replaced, and the picture changed"


@dataclass(frozen=True)
class Options(Seeded):
    picture: Picture = None
    """a picture or a folder of pictures, cropped to squares; by default the phantom's scenes."""
    number: int = 30
    """how many scenes, pictures of the folder, or draws of the noise on the one picture."""
    shares: tuple[float, ...] = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)
    """of the positions, from 0 on, no more than 1."""
    amplitudes: tuple[float, ...] = (0, 0.25, 0.5, 1, 2, 4)
    """of the noise, in standard deviations of the latent; from 0 on, and 1 among them."""

    def check(self) -> None:
        super().check()
        check_range("number", self.number, LEAST, MOST, 30)
        latent_noise.check_grid(self.shares, self.amplitudes)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    shares, amplitudes = options.shares, options.amplitudes
    pictures = find_pictures(options.picture, sd.size, options.number, options.seed)
    images = to_model(pictures, sd.vae_config.factor)
    latents = encode(sd, images)
    plain, std = decode(sd, latents), float(latents.std())
    noisy = {
        (share, a): decode(sd, latent_noise.replace(latents, share, a * std, options.seed))
        for share in shares
        for a in amplitudes
    }
    off = max(float(np.abs(noisy[0, a] - plain).max()) for a in amplitudes)
    grid = [[psnr(images, noisy[share, a]) for a in amplitudes] for share in shares]
    shown = [[noisy[share, a][0] for a in amplitudes] for share in shares]
    sweep = Sweep(shares, amplitudes, np.array(shown), np.array(grid))
    lost = sweep.psnr[0] - sweep.psnr  # (shares, amplitudes, n)
    table = [
        {
            "amplitude": f"{a:g}",
            COSTS: mean_of(100 * latent_noise.share_where_lost(curve, shares, LOSS), "%"),
        }
        | {
            f"dB lost at {s:.0%}": mean_of(db[i], "dB")
            for s, db in zip(shares[1:], lost[1:], strict=True)
        }
        for i, (a, curve) in enumerate(zip(amplitudes, np.moveaxis(sweep.psnr, 1, 0), strict=True))
    ]
    at = {row["amplitude"]: row[COSTS] for row in table}
    zeros = f"as strong as the latent costs 3 dB PSNR; by zeros, {at['0'].short}."
    finding = f"Replacing {at['1']} of latent positions by noise {zeros}"
    return Report(
        finding,
        Control("no position replaced, at every amplitude: off by", f"{off:g}", off == 0, WRONG),
        table=table,
        figure=figures.corruption_sheet(sweep, LOSS, finding),
        tensors={"latents": latents, "psnr": sweep.psnr, "pictures": sweep.pictures},
    )


def find_pictures(place: Path | None, size: int, number: int, seed: int) -> np.ndarray:
    """(n, H, W, 3) uint8: from disk, one alone again and again, or scenes that are new."""
    if place is None:
        return new_scenes(seed, number, size)[0]
    found = read_pictures(place, size, number)
    return found if len(found) > 1 else np.repeat(found, number, axis=0)


if __name__ == "__main__":
    script.run_experiment(main, Options)
