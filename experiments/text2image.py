"""What does a latent diffusion model make of these words, and how does it get there?

A picture is drawn from noise in a number of steps. At each step the model predicts the noise in
x_t, once with the prompt and once without (or with a negative one), and the difference is amplified
by classifier-free guidance. The sheet shows two rows over the steps, both decoded: the noisy x_t,
and the predicted clean image x̂0: first the background and the rough places of things, then their
shapes, last their details.

The number is the guidance signal ‖ε_cond − ε_uncond‖ / ‖ε_cond‖, half way; its control, the same
prompt on both sides, must have none.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

import stable_diffusion_tf
from experiments.figures import text2image as figures
from phantom.attribution.examples import masks_in
from phantom.prompts import GRAMMAR, not_read
from phantom.world import SIDE
from xray import script
from xray.film import Film, page
from xray.options import EXAMPLE, Prompt, Sampling
from xray.report import Control, Report

WRONG = "the same prompt on both sides changed the predicted noise"
ENLARGED = 8  # times, for pictures as small as the phantom's


@dataclass(frozen=True)
class Options(Sampling):
    prompt: Prompt = EXAMPLE
    """what to draw."""
    negative: str = ""
    """what to steer away from."""
    eta: float = 0.0
    """sampling noise at each step, from 0 (DDIM, none) to 1 (as much as DDPM)."""
    height: int | None = None
    """in pixels; by default, as the width, what the model was trained on."""
    width: int | None = None
    words: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """FILE of textual inversion, or '<name>=FILE' to call its word so; --words once for each."""
    preview: Path | None = None
    """a folder of TAESD, which paints x̂0 in a hundredth of the time."""
    html: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """write the run as one page to look into, run.html."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print the phantom's words and grammar, and draw nothing."""

    def check(self) -> None:
        if self.list:
            print(GRAMMAR)
            raise SystemExit(0)
        super().check()


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    named = [*map(word_and_file, options.words)]
    notes = [f"{sd.add_word(path, word)} is a word now, from {path}" for word, path in named]
    notes += not_read(sd, options.prompt)
    if options.preview:
        sd.load_preview(options.preview)
    context = sd.encode_text([options.prompt, options.prompt])
    latent = sd.draw_noise(options.seed, 1, options.height, options.width)
    run = {name: getattr(options, name) for name in ("steps", "guidance", "eta", "seed")}
    sd.denoise(context, context, latent=latent, **run)  # not begun: it looks
    same = sd.predict_noise(np.repeat(latent, 2, 0), sd.timesteps(options.steps)[0], context)
    run |= {"negative": options.negative, "height": options.height, "width": options.width}
    out, probes = options.folder or Path(tempfile.mkdtemp()), page.probes() if options.html else ()
    film = Film.shoot(sd, options.prompt, probes=probes, out=out, **run)
    shown = {"first": film[0], "half way": film[len(film) // 2], "last": film[-1]}
    signals = {n: signal(f["eps_uncond"], f["eps_cond"]) for n, f in shown.items()}
    most, still = signals["half way"], signal(*same)
    finding = f"Half way the prompt changes the predicted noise by {100 * most:.1f} %."
    passed = still < min(most, 1e-3) or sd.is_lcm
    k = ENLARGED if max(film.image.shape) <= 2 * SIDE else 1
    return Report(
        finding,
        Control("the same prompt on both sides changes it", f"by {still:.2%}", passed, WRONG),
        table=[{"step": n, "t": f.t, "guidance signal": signals[n]} for n, f in shown.items()],
        figure=figures.two_rows(film, sd.preview if options.preview else sd.decode_latent, finding),
        pictures={f"image-x{k}": film.image.repeat(k, 0).repeat(k, 1)} if k > 1 else {},
        notes=notes,
        film=options.folder,
        page=film.to_html(out / "run.html", masks_in(film.image)) if options.html else None,
    )


def word_and_file(given: str) -> tuple[str | None, Path]:
    """'<toy>=a.pt' → its parts; what does not begin like a word is a file as a whole."""
    word, sign, path = given.partition("=")
    named = sign and re.fullmatch(r"<\S+>", word)
    return (word, Path(path)) if named else (None, Path(given))


def signal(uncond: np.ndarray, cond: np.ndarray) -> float:
    return float(np.linalg.norm(cond - uncond) / np.linalg.norm(cond))


if __name__ == "__main__":
    script.run_experiment(main, Options)
