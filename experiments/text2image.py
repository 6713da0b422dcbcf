"""What does a latent diffusion model make of these words, and how does it get there?

A picture is drawn from noise in a number of steps. At each step the model says what noise it sees,
once for the prompt and once for an empty (or a negative) one; the prompt's share is exaggerated by
the guidance. The film strip shows, from left to right, what the model believed the finished
picture to be: first the background and the rough places of things, then their shapes, last their
details. The number printed is how far the words move the predicted noise, half way; its control,
the same words on both sides, must move nothing.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image

from stable_diffusion_tf.images import to_uint8
from xray import film, plots, script

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion, Step

EXAMPLE = "a rabbit left of a strawberry on a purple background"
SHOWN = 8  # pictures on the film strip


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    negative: str = "",
    steps: int = 25,
    guidance: float = 7.5,
    eta: float = 0.0,
    seed: int = 0,
    height: int | None = None,
    width: int | None = None,
    weights: str = "phantom",
    precision: Literal["float32", "bfloat16", "float16-storage"] = "float32",
    out: Path = Path("outputs"),
) -> None:
    """Words to picture, with the film of how it came about.

    Args:
        prompt: what to draw.
        negative: what to steer away from.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated; 1 is not at all.
        eta: fresh noise at each step, from 0 (DDIM, none) to 1 (as much as DDPM).
        seed: draws the noise; the same seed draws the same picture.
        height: in pixels; by default the size that the model was trained on.
        width: in pixels; likewise.
        weights: a model's name, or its folder or file.
        precision: of the numbers; the latter two take half the memory.
        out: the folder to save into.
    """
    sd = script.load_model(weights, precision)
    tell_words(sd, prompt)
    latent = sd.draw_noise(seed, 1, height, width)
    context, uncond = np.split(sd.encode_text([prompt, negative]), 2)
    sd.finish("text_encoder")
    run = sd.denoise(context, uncond, steps, guidance, eta, seed, latent)
    sd.network("unet")  # what is wrong with it is said before anything is written
    folder = script.make_folder(out, "text2image", prompt)
    with script.saving_into(folder):
        film.start_film(folder, describe(sd, prompt, negative, steps, guidance, eta, seed, latent))
        started, taken = time.perf_counter(), []
        for step in run:
            film.add_frame(folder, step)
            taken.append(step)
        moved = difference(sd, taken[len(taken) // 2], uncond, context)
        still = difference(sd, taken[len(taken) // 2], context, context)
        sd.finish("unet")
        image = sd.decode_latent(taken[-1].x_prev)[0]
        seconds = time.perf_counter() - started
        Image.fromarray(to_uint8(image)).save(folder / "image.png")
        script.save_figure(draw_strip(sd, taken, prompt, seed), folder / "strip.png")
    print(f"{len(taken)} steps in {seconds:.1f} s, peak memory {script.peak_memory()} GB")
    print(
        f"half way the words move the predicted noise by {moved:.1%} "
        f"(control, the same words: {still:.1%})"
    )
    print(f"picture  {folder / 'image.png'}")
    print(f"strip    {folder / 'strip.png'}")
    print(f"tensors  {folder / 'frames'}")
    if not still < min(moved, 1e-3):
        raise SystemExit("the control failed: the same words on both sides moved the noise")


def tell_words(sd: "StableDiffusion", prompt: str) -> None:
    """Say which words will not be read: those that do not fit, and those never learned."""
    if rest := sd.tokenizer.cut(prompt):
        print(f"only 75 tokens fit; cut: {rest}")
    for word, near in sd.unknown_words(prompt).items():
        print(f"the model never saw '{word}'; near it, it knows: {', '.join(near)}")


def difference(sd: "StableDiffusion", step: "Step", one: np.ndarray, other: np.ndarray) -> float:
    """How far the noise that a step predicts from one context is from that of another."""
    both = np.repeat(step.x, 2, axis=0), step.t, np.concatenate([one, other])
    a, b = sd.predict_noise(*both)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def describe(
    sd: "StableDiffusion",
    prompt: str,
    negative: str,
    steps: int,
    guidance: float,
    eta: float,
    seed: int,
    latent: np.ndarray,
) -> dict[str, Any]:
    """What film.json holds: all that is needed to run this again."""
    return {
        "prompt": prompt,
        "negative": negative,
        "steps": steps,
        "guidance": guidance,
        "eta": eta,
        "seed": seed,
        "latent_shape": list(latent.shape),
        "scheduler": "DDIM",
        "weights": sd.checkpoint.place.name,
        "precision": sd.precision,
        "backend": sd.backend,
    }


def draw_strip(sd: "StableDiffusion", taken: list["Step"], prompt: str, seed: int) -> Figure:
    """What the model believed the picture to be, at evenly spread steps; last, the picture."""
    chosen = np.unique(np.linspace(0, len(taken) - 1, min(SHOWN, len(taken))).round().astype(int))
    latents = [taken[i].x0 for i in chosen[:-1]] + [taken[-1].x_prev]
    labels = [f"step {i + 1}\nt = {taken[i].t}" for i in chosen]
    images = [sd.decode_latent(latent)[0] for latent in latents]  # one by one: large pictures fit
    return plots.film_strip(images, labels, f"“{prompt}”, seed {seed}: what the model expects")


if __name__ == "__main__":
    script.run(main)
