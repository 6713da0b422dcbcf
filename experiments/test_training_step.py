"""What does training ask of the UNet, and where is it hard?

In training a picture's latent is noised to a random timestep, the UNet says which noise it sees,
and its weights are moved to make the square error of that smaller (arXiv 2006.11239, algorithm 1).
Here pictures that the phantom never saw are noised to the same timesteps, and nothing is moved: the
error is read, with the picture's own words, with none, and with those of another picture.

Top: one picture, the noise put in, the noise predicted, and the picture that this leaves. Below,
from the left: the error of the noise (whoever says zero has 1; the best multiple of x is the guess
of one who never saw a picture) and of the latent, which is (1 − ᾱ)/ᾱ times that; the same as shares
of the variance; and how much smaller the error is with the right words, with standard errors over
the pictures. The noise is hard to see where there is little, the picture where there is much.

That the loss grows towards the picture is known of all such models; arXiv 2303.09556 weighs it by
min(5/SNR, 1), and the phantom was trained with min(2/SNR, 20): noisy timesteps, where places are
decided, counted much and small ones little, unlike in SD 1.x. The controls: predicting zero must
have an error of 1 at every timestep, and the words of another picture must not do better than its
own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import training_step as figures
from phantom.world import for_evaluation, render, scenes
from stable_diffusion_tf import scheduler
from stable_diffusion_tf.errors import UsageError
from xray import measure, script
from xray.measure.telling import with_error
from xray.methods.denoising_loss import Errors, measure_errors, measure_saved, misses, predict_all
from xray.methods.drawing import decode
from xray.pictures import read_image

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

TIMES = np.array([1, 20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999])
SHOWN = [1, 3, 4, 6, 8, 10, 12]  # of them, those with pictures
WORDS = ("its own words", "no words", "another's words")
OWN, NONE, OTHER = range(3)
CHANCE = 5.0  # standard errors; beyond it, true noise lands once in a million


def main(
    image: Annotated[Path | None, tyro.conf.Positional] = None,
    /,
    prompt: str = "",
    number: int = 64,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """The training loss at each timestep, with the right words, none, and wrong ones.

    Args:
        image: a picture to noise again and again; by default scenes of the phantom's world.
        prompt: what is to be seen in it.
        number: how many scenes, or noises of the picture, 4 to 512.
        seed: draws the scenes and the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("number", number, 4, 512, 64)
    script.check_seed(seed)
    if (image is None) != (not prompt):
        raise UsageError("a picture and its words go together: name an image and --prompt, or none")
    sd = script.load_model(weights)
    images, own, others = find_pictures(image, prompt, number, seed, sd.size)
    x0 = sd.encode_image(images).repeat(number // len(images), axis=0)
    rng = np.random.default_rng([seed, 1])  # apart from the stream of the scenes
    noise = rng.standard_normal((number, len(TIMES), *x0.shape[1:]), dtype=np.float32)
    contexts = read_words(sd, own, others)
    folder = script.make_folder(out, "test_training_step", image.stem if image else "scenes")
    with script.saving_into(folder):
        loss, predicted = predict_all(sd, x0, noise, contexts, TIMES)
        errors = measure_errors(loss[OWN].mean(0), x0, TIMES, sd.alphas)
        saved = {WORDS[i]: measure_saved(loss[i], loss[OWN]) for i in (NONE, OTHER)}
        title = finding(errors, saved)
        rows = show(sd, images, x0, noise[0], predicted[OWN])
        shown = TIMES[SHOWN].tolist()
        figure = figures.training_sheet(rows, shown, own[0], errors, saved, title)
        script.save_figure(figure, folder / "training.png")
        tensors = {"loss": loss, "timesteps": TIMES, "noise": noise[0], "predicted": predicted}
        save_file(tensors, folder / "training.safetensors")
    zero, harm = misses(noise), (loss[OTHER] - loss[OWN]).mean(1)
    tell(errors, loss[OWN], saved)
    script.conclude(
        title,
        f"zero misses an error of 1 by {np.abs(zero).max():.1f} standard errors; "
        f"another's words add {with_error(harm, 4)} to the error",
        picture=folder / "training.png",
        tensors=folder / "training.safetensors",
    )
    check_control(zero, harm)


def find_pictures(
    image: Path | None, prompt: str, number: int, seed: int, size: int
) -> tuple[np.ndarray, list[str], list[str]]:
    """Pictures (1 or number, H, W, 3) uint8, and `number` times its own words and another's.
    The scenes are of those that training never showed."""
    drawn = scenes(seed, number, for_evaluation)
    captions = [scene.caption for scene in drawn]
    if image is not None:
        return read_image(image, size)[None], [prompt] * number, captions
    return np.stack([render(scene) for scene in drawn]), captions, captions[1:] + captions[:1]


def read_words(sd: "StableDiffusion", own: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """The contexts of WORDS, (3, number, 77, width)."""
    mine, none, theirs = np.split(sd.encode_text([*own, "", *others]), [len(own), len(own) + 1])
    return np.stack([mine, none.repeat(len(own), axis=0), theirs])


def check_control(zero: np.ndarray, harm: np.ndarray) -> None:
    """Raises SystemExit where zero has an error other than 1, or wrong words do better: zero in
    standard errors, (times,); harm: by what they make the error larger, (number,)."""
    if np.abs(zero).max() > CHANCE:
        raise SystemExit("the control failed: the noise put in has not the variance 1")
    if measure.exceeds(np.zeros(len(harm)), harm):
        raise SystemExit("the control failed: another's words do better than the picture's own")


# --- telling -----------------------------------------------------------------------------------


def show(
    sd: "StableDiffusion", images: np.ndarray, x0: np.ndarray, noise: np.ndarray, eps: np.ndarray
) -> dict[str, np.ndarray]:
    """The first picture noised, the noise, the predicted noise and what that leaves, in colours:
    name → (shown, H, W, 3). Latents are coloured by the linear map that fits the pictures best,
    noise half as strongly."""
    t, put_in, seen = TIMES[SHOWN], noise[SHOWN], eps[SHOWN]
    matrix, bias, _ = measure.fit_latent_to_rgb(x0[: len(images)], images)
    x = scheduler.add_noise(x0[:1].repeat(len(t), axis=0), put_in, t, sd.alphas)
    return {
        "x at t": measure.linear_rgb(x, matrix, bias),
        "noise put in": measure.linear_rgb(put_in / 2, matrix),
        "noise predicted": measure.linear_rgb(seen / 2, matrix),
        "x0 that it leaves": decode(sd, scheduler.predict_x0(x, seen, t, sd.alphas)),
    }


def tell(errors: Errors, loss: np.ndarray, saved: dict[str, np.ndarray]) -> None:
    print("   t   error of the noise   explained, %   error of x0   explained, %   ", end="")
    print(", ".join(f"saved against {name}" for name in saved) + ", %")
    for i, t in enumerate(errors.t):
        words = "".join(f"{with_error(values[:, i]):>22}" for values in saved.values())
        share = 100 * (1 - errors.x0[i] / errors.variance)
        print(
            f"{t:4} {with_error(loss[:, i], 4):>20} {100 * (1 - errors.noise[i]):14.1f} "
            f"{errors.x0[i]:13.4f} {share:14.1f}   {words}"
        )


def finding(errors: Errors, saved: dict[str, np.ndarray]) -> str:
    hard, easy = np.argmax(errors.noise), np.argmin(errors.noise)
    worst, best = np.argmax(errors.x0), np.argmin(errors.x0)
    words = []
    for name, values in saved.items():
        most = int(np.argmax(values.mean(0)))
        words.append(f"{with_error(values[:, most], 1, '%')} at t = {TIMES[most]} against {name}")
    return (
        f"the noise is hardest to see at t = {TIMES[hard]} (error {errors.noise[hard]:.2f}; "
        f"{errors.noise[easy]:.4f} at {TIMES[easy]}), the picture at t = {TIMES[worst]} "
        f"({errors.x0[worst]:.2f}; {errors.x0[best]:.4f} at {TIMES[best]}); the right words save "
        f"at most {', '.join(words)}"
    )


if __name__ == "__main__":
    script.run(main)
