"""What does a latent diffusion model make of these words, and how does it get there?

A picture is drawn from noise in a number of steps. At each step the model says what noise it sees,
once for the prompt and once for an empty (or a negative) one; the prompt's share is exaggerated by
the guidance. The film strip shows, from left to right, what the model believed the finished
picture to be: first the background and the rough places of things, then their shapes, last their
details. The number printed is how far the words move the predicted noise, half way; its control,
the same words on both sides, must move nothing.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro
from matplotlib.figure import Figure

from xray import plots, script
from xray.film import Film

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

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
    words: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    preview: Path | None = None,
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
        words: FILE of textual inversion, or '<name>=FILE' to call its word so: the prompt may hold
            it, like <toy>. For several, --words once for each.
        preview: a folder of TAESD, which paints the film strip in a hundredth of the time.
        out: the folder to save into.
    """
    sd = script.load_model(weights, precision)
    for given in words:
        word, path = word_and_file(given)
        print(f"{sd.add_word(path, word)} is a word now, from {path}")
    paint = sd.decode_latent
    if preview:
        sd.load_preview(preview)
        paint = sd.preview
    tell_words(sd, prompt)
    latent = sd.draw_noise(seed, 1, height, width)
    context = sd.encode_text([prompt, prompt])
    sd.denoise(context, context, steps, guidance, eta, seed, latent)  # not begun: it looks
    same = sd.predict_noise(np.repeat(latent, 2, 0), sd.timesteps(steps)[0], context)
    folder = script.make_folder(out, "text2image", prompt)
    with script.saving_into(folder):
        started = time.perf_counter()
        film = Film.shoot(
            sd,
            prompt,
            negative=negative,
            steps=steps,
            guidance=guidance,
            eta=eta,
            seed=seed,
            height=height,
            width=width,
            out=folder,
        )
        seconds = time.perf_counter() - started
        script.save_figure(draw_strip(film, paint), folder / "strip.png")
    half_way = film[len(film) // 2]
    moved = difference(half_way["eps_uncond"], half_way["eps_cond"])
    still = difference(*same)
    print(f"{len(film)} steps in {seconds:.1f} s, peak memory {script.peak_memory()} GB")
    script.conclude(
        f"“{prompt}”: half way the words move the predicted noise by {moved:.1%}",
        f"the same words on both sides move it by {still:.1%}",
        image=folder / "image.png",
        picture=folder / "strip.png",
        film=folder,
        tensors=folder / "frames",
    )
    if not still < min(moved, 1e-3):
        raise SystemExit("the control failed: the same words on both sides moved the noise")


def word_and_file(given: str) -> tuple[str | None, Path]:
    """'<toy>=a.pt' → its parts; what does not begin like a word is a file as a whole."""
    word, sign, path = given.partition("=")
    named = sign and re.fullmatch(r"<\S+>", word)
    return (word, Path(path)) if named else (None, Path(given))


def tell_words(sd: "StableDiffusion", prompt: str) -> None:
    """Say which words will not be read: those that do not fit, and those never learned."""
    if rest := sd.tokenizer.cut(prompt):
        print(f"only 75 tokens fit; cut: {rest}")
    for word, near in sd.unknown_words(prompt).items():
        print(f"the model never saw '{word}'; near it, it knows: {', '.join(near)}")


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def draw_strip(film: Film, paint: Callable[[np.ndarray], np.ndarray]) -> Figure:
    """What the model believed the picture to be, at evenly spread steps; last, the picture.
    `paint`: latents (b, h, w, 4) → images (b, H, W, 3)."""
    steps = np.linspace(0, len(film) - 1, min(SHOWN, len(film))).round().astype(int)
    *before, last = (film[i] for i in np.unique(steps).tolist())
    latents = [*(frame["x0"] for frame in before), last["x_prev"]]
    labels = [f"step {frame.index + 1}\nt = {frame.t}" for frame in [*before, last]]
    images = [paint(latent)[0] for latent in latents]  # one by one: large pictures fit
    prompt, seed = film.facts["prompt"], film.facts["seed"]
    return plots.film_strip(images, labels, f"“{prompt}”, seed {seed}: what the model expects")


if __name__ == "__main__":
    script.run(main)
