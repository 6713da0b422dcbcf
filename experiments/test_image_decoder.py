"""What does the decoder make of a latent, and how much of it is linear?

The decoder is a deep network, and yet a matrix can stand in for it: the least-squares map from the
few numbers of a latent position to a colour is fitted on half of the pictures, and guesses what the
decoder paints for the other half. R² is the share of the variance that it explains, of the mean
colours of the positions and of the pixels. Then one position at a time is moved by Gaussian noise:
the picture changes around it, and the radius that holds 95 % of the squared change says how far a
position reaches; far away the change is small but not zero.

Top, a row for each picture: as it is decoded, as the matrix has it, and latents that no encoder
makes. Where the right half is set to 0, the colour of the left half, which was not touched, may
change too. For SD 1.x the matrix is [.298 .207 .208] [.187 .286 .173] [−.158 .189 .264] [−.184
−.271 −.473], and its colours correlate with those of photographs by 0.87 to 0.93, an R² of 76 to 86
% (keturn, Hugging Face forum, topic 23204). Intervals are over the pictures that are held out;
fewer than 8 pictures are cut into 16 pieces each.

The control: a map fitted to shuffled pictures must explain not half as much (below zero: it does
worse than one mean colour), and a latent that is not moved must give the same picture, exactly.
"""

from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import image_decoder as figures
from phantom.world import new_scenes
from xray import measure, script
from xray.measure import mean_of
from xray.methods.drawing import decode, encode
from xray.methods.linear_decoder import LEAST, fit_and_test, over_pixels
from xray.methods.receptive_field import measure_reach
from xray.options import Picture, Seeded, check_range
from xray.pictures import read_pictures
from xray.report import Control, Report
from xray.tensor_debug import DebugTensor

MOST = 512  # pictures
ROWS = 3  # pictures on the sheet
PROBED = 8  # pictures in which positions are moved
WRONG = "a map fitted to shuffled pictures explains as much, or one latent gave two pictures"


@dataclass(frozen=True)
class Options(Seeded):
    picture: Picture = None
    """a picture or a folder of pictures, cropped to squares; by default the phantom's scenes."""
    number: int = 128
    """how many scenes, or pictures of the folder, 8 to 512."""

    def check(self) -> None:
        super().check()
        check_range("number", self.number, LEAST, MOST, 128)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    if options.picture:
        pictures = read_pictures(options.picture, sd.size, options.number)
    else:
        pictures, _ = new_scenes(options.seed, options.number, sd.size)
    latents, rng = encode(sd, pictures), np.random.default_rng(options.seed)
    decoded = decode(sd, latents)
    linear = fit_and_test(latents, decoded, rng)
    reach = measure_reach(sd, latents[:PROBED], rng)
    few, seen = latents[:ROWS], decoded[:ROWS]
    guess = over_pixels(measure.linear_rgb(few, linear.matrix, linear.bias), seen)
    shown = {"decoded": seen, "the matrix": np.clip(guess, -1, 1)}
    shown |= {name: decode(sd, x) for name, x in vary(few, rng).items()}
    finding = (
        f"A matrix from a latent position's {latents.shape[-1]} numbers to a colour explains "
        f"{linear.places} of the decoder's colours."
    )
    rows = [*map(str, range(len(linear.matrix))), "bias"]
    passed = linear.shuffled.value < linear.places.value / 2 and reach.unmoved == 0
    outcome = f"{linear.shuffled}; {reach.unmoved:g}"
    return Report(
        finding,
        Control("shuffled pictures; not moved", outcome, passed, WRONG),
        numbers={
            "R² of positions": linear.places,
            "R² of pixels": linear.pixels,
            "R², pictures shuffled": linear.shuffled,
            "radius that holds 95 % of a position's change": mean_of(reach.radii, "pixels"),
        },
        table=[
            {"channel": name} | dict(zip(("red", "green", "blue"), map(float, row), strict=True))
            for name, row in zip(rows, (*linear.matrix, linear.bias), strict=True)
        ],
        figure=figures.decoder_sheet(shown, linear, reach, finding),
        tensors=shown
        | {"matrix": linear.matrix, "bias": linear.bias, "latents": latents, "decoded": decoded}
        | {"radii": reach.radii, "rms": reach.rms, "around": reach.around},
    )


def vary(latents: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Latents (n, h, w, c) that no encoder makes, by name."""
    _, h, w, c = latents.shape
    rows, columns = (slice(side // 4, side // 4 + side // 2) for side in (h, w))
    left = np.arange(w)[:, None] < w // 2
    return {
        "Gaussian noise": rng.standard_normal(latents.shape, dtype=np.float32),
        "middle, tiled": DebugTensor(latents, space="latent").tile(rows, columns).array,
        "right half 0": latents * left,
        **{f"channel {i} alone": latents * (np.arange(c) == i) for i in range(c)},
    }


if __name__ == "__main__":
    script.run_experiment(main, Options)
