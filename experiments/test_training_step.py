"""What does training ask of the UNet, and where is it hard?

In training a picture's latent is noised to a random timestep, the UNet predicts the noise, and its
weights are moved to make the square error of that smaller (arXiv 2006.11239, algorithm 1). Here
pictures that the phantom never saw are noised to the same timesteps, and nothing is moved: the
error is read, with the picture's own words, with none, and with those of another picture.

Top: one picture, the noise put in, the noise predicted, and the predicted clean image x̂0. Below,
from the left: the error of the noise (whoever predicts zero has 1; the best multiple of x_t is the
guess of one who never saw a picture) and of the latent, which is (1 − ᾱ)/ᾱ times that; the same as
shares of the variance; and how much smaller the error is with the right words, with 95 % intervals
over the pictures. The noise is hard to see where there is little, the picture where there is much.

That the loss grows towards the clean picture is known; arXiv 2303.09556 weighs it by min(5/SNR, 1),
the phantom's training by min(4/SNR, 60): noisy timesteps, where places are decided, counted much.
The control: predicting zero must have an error of 1 at every timestep, and the words of another
picture must not do better than its own.
"""

from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import training_step as figures
from phantom.prompts import known_things
from phantom.world import new_scenes
from stable_diffusion_tf.errors import UsageError
from xray import script
from xray.measure import mean_of
from xray.methods import denoising_loss
from xray.methods.drawing import encode
from xray.options import Picture, Seeded, check_range
from xray.pictures import read_image
from xray.report import Control, Report

TIMES = np.array([1, 20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999])
SHOWN = [1, 3, 4, 6, 8, 10, 12]  # of them, those with pictures
CHANCE = 5.0  # standard errors; beyond it, true noise lands once in a million
WRONG = "the noise put in has not the variance 1, or another's words do better than its own"


@dataclass(frozen=True)
class Options(Seeded):
    picture: Picture = None
    """cropped to its middle square, and noised again and again; by default the phantom's scenes."""
    prompt: str = ""
    """what is to be seen in the picture."""
    number: int = 64
    """how many scenes, or noises of the picture, 4 to 512."""

    def check(self) -> None:
        super().check()
        check_range("number", self.number, 4, 512, 64)
        if (self.picture is None) != (not self.prompt):
            raise UsageError("a picture and its words go together: name both, or none")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    number = options.number
    images, own, others = find_cases(sd, options)
    texts = sd.encode_text([*own, *[""] * number, *others]).reshape(3, number, 77, -1)
    x0 = encode(sd, images).repeat(number // len(images), axis=0)
    rng = np.random.default_rng([options.seed, 1])  # apart from the stream of the scenes
    noise = rng.standard_normal((number, len(TIMES), *x0.shape[1:]), dtype=np.float32)
    loss, predicted = denoising_loss.predict_all(sd, x0, noise, texts, TIMES)  # (3, number, times)
    errors = denoising_loss.measure_errors(loss[0].mean(0), x0, TIMES, sd.alphas)
    saved = 100 * (loss[1:] - loss[0]) / loss[1:].mean(1, keepdims=True)  # (2, number, times)
    table = [
        {
            "t": str(t),
            "error of the noise": mean_of(loss[0, :, i]),
            "error of x̂0": float(errors.x0[i]),
            "saved against no words": mean_of(saved[0, :, i], "%"),
            "saved against another's words": mean_of(saved[1, :, i], "%"),
        }
        for i, t in enumerate(TIMES)
    ]
    hard = max(table, key=lambda row: row["error of the noise"].value)
    error = f"the square error is {hard['error of the noise']}; predicting zero has 1."
    finding = f"The noise is hardest to predict at t = {hard['t']}: {error}"
    zero, harm = denoising_loss.misses(noise).max(), mean_of((loss[2] - loss[0]).mean(1))
    outcome = f"an error of 1 to within {zero:.1f} standard errors; the error grows by {harm}"
    passed = bool(zero <= CHANCE and not harm.high < 0)
    rows = denoising_loss.show(sd, images, x0, noise[0], predicted[0], TIMES, SHOWN)
    return Report(
        finding,
        Control("predicting zero; another's words", outcome, passed, WRONG),
        table=table,
        figure=figures.training_sheet(rows, TIMES[SHOWN], own[0], errors, table, finding),
        tensors={"loss": loss, "timesteps": TIMES, "noise": noise[0], "predicted": predicted},
    )


def find_cases(
    sd: "stable_diffusion_tf.StableDiffusion", options: Options
) -> tuple[np.ndarray, list[str], list[str]]:
    """Pictures (1 or number, H, W, 3) uint8, and `number` times their own words and another's."""
    images, captions = new_scenes(options.seed, options.number, sd.size, known_things(sd))
    if options.picture:
        image = read_image(options.picture, sd.size)[None]
        return image, [options.prompt] * options.number, captions
    return images, captions, captions[1:] + captions[:1]


if __name__ == "__main__":
    script.run_experiment(main, Options)
