"""What does the forward process do to a picture, and is x_t what the formula says?

The latents of some pictures walk from clean to noise in a thousand small steps, each a little less
of the latent and a little fresh noise (arXiv 2006.11239, eq. 2). The formula (eq. 4) says where
they are after t of them without walking: √ᾱ of the picture and √(1−ᾱ) of one Gaussian noise. Top: a
picture on its way, decoded, with its signal-to-noise ratio. Below, dots are what was measured in
the walk and must lie on the solid curves; the last panel shows that x_t becomes Gaussian as the
noise grows. The walk does not end in pure noise: at the last timestep the ratio is still 0.0047
(arXiv 2305.08891), so a model that starts from pure noise was never trained on such a start.

The number is how far the noise that the formula finds in x_t is from standard Gaussian, in standard
errors. The control is the same with the wrong table, β in a straight line instead of √β (a
scheduler's most frequent slip): it must miss. The variance of x_t would not show it, as it stays
near one whatever the table, because the latents are scaled to a variance near one.
"""

from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import noise_schedule as figures
from experiments.figures.noise_schedule import Schedule
from phantom.world import render_all, scenes
from stable_diffusion_tf import scheduler
from xray import script
from xray.measure import normality
from xray.methods import forward_process
from xray.methods.drawing import decode, encode
from xray.options import Picture, Seeded, check_range
from xray.pictures import read_image
from xray.report import Control, Report

STOPS = (0, 50, 100, 200, 300, 400, 600, 800, 999)  # the timesteps that are looked at
LEAST, MOST = 4, 256  # walks: fewer do not tell two tables apart, more are slow to encode
CHANCE = 5.0  # standard errors; beyond it, a true formula lands once in a million
WRONG = "x_t is not what the formula says, or a wrong schedule fits as well"


@dataclass(frozen=True)
class Options(Seeded):
    picture: Picture = None
    """cropped to its middle square; by default scenes of the phantom's world."""
    number: int = 64
    """how many scenes, or walks of the picture, 4 to 256."""

    def check(self) -> None:
        super().check()
        check_range("number", self.number, LEAST, MOST, 64)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    x0 = find_latents(sd, options)
    x = forward_process.walk(x0, sd.alphas, STOPS, np.random.default_rng(options.seed))
    right = Schedule("√β linear (SD)", sd.alphas)
    wrong = Schedule("β linear", forward_process.straight_betas())
    seen = forward_process.look(x, x0, STOPS, sd.alphas)
    off, control = (
        np.abs(forward_process.misses(x, x0, STOPS, table.alphas)).max(1)
        for table in (right, wrong)
    )
    missed = f"{off.max():.1f} standard errors at most, a wrong schedule by {control.max():.0f}."
    finding = f"A thousand small steps equal one formula: x_t misses it by {missed}"
    decoded, variance = decode(sd, x[:, 0]), float(x0.var())
    table = [
        {
            "t": str(t),
            "SNR, dB": round(figures.decibel(t, sd.alphas), 1),
            "√ᾱ": round(sd.alphas[t] ** 0.5, 4),
            "amplitude of x_0": round(seen.share[i], 4),
            "variance of x_t": round(seen.variance[i], 4),
            "excess kurtosis": round(normality(seen.values[i]).excess_kurtosis, 2),
            "standard errors off": round(off[i], 1),
        }
        for i, t in enumerate(STOPS)
    ]
    passed = off.max() <= CHANCE < control.max()
    return Report(
        finding,
        Control(
            "the wrong table, β linear", f"{control.max():.0f} standard errors off", passed, WRONG
        ),
        numbers={"SNR at the last timestep": float(scheduler.snr(len(sd.alphas) - 1, sd.alphas))},
        table=table,
        figure=figures.forward_sheet(decoded, seen, right, wrong, variance, finding),
        tensors={"x0": x0, "x": x, "pictures": decoded},
    )


def find_latents(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> np.ndarray:
    """The latents to walk from, (number, h, w, 4): the picture's, again and again, or scenes'."""
    if options.picture:
        only = sd.encode_image(read_image(options.picture, sd.size)[None])
        return np.repeat(only, options.number, axis=0)
    return encode(sd, render_all(scenes(options.seed, options.number), sd.size))


if __name__ == "__main__":
    script.run_experiment(main, Options)
