"""What does the forward process do to a picture, and is x_t what the formula says?

The latents of some pictures walk from clean to noise in a thousand small steps, each a little less
of the latent and a little fresh noise (arXiv 2006.11239, eq. 2). The formula (eq. 4) says where
they are after t of them without walking: √ᾱ of the picture and √(1−ᾱ) of one normal noise. Top: a
picture on its way, decoded, with its signal-to-noise ratio. Below, dots are what was measured in
the walk and must lie on the solid curves; the last panel shows that x takes on the normal form as
the noise grows. The walk does not end in pure noise: at the last timestep the ratio is still
0.0047 (arXiv 2305.08891), so a model that starts from pure noise never saw such a start.

The number is how far the noise that the formula finds in x_t is from standard normal, in standard
errors. The control is the same with the wrong table, β in a straight line instead of √β (a
scheduler's most frequent slip): it must miss. The variance of x_t would not show it, as it stays
near one whatever the table, because the latents are scaled to a variance near one.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import noise_schedule as figures
from experiments.figures.noise_schedule import Schedule, Seen
from phantom.world import render, scenes
from stable_diffusion_tf import scheduler
from xray import measure, script
from xray.methods.drawing import decode
from xray.pictures import read_image

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

STOPS = (0, 50, 100, 200, 300, 400, 600, 800, 999)  # the timesteps that are looked at
LEAST, MOST = 4, 256  # walks: fewer do not tell two tables apart, more are slow to encode
CHANCE = 5.0  # standard errors; beyond it, a true formula lands once in a million


def main(
    image: Annotated[Path | None, tyro.conf.Positional] = None,
    /,
    number: int = 64,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Walk latents into noise step by step, and compare with the formula.

    Args:
        image: a picture; by default scenes of the phantom's world.
        number: how many scenes, or walks of the picture, 4 to 256.
        seed: draws the scenes and the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("number", number, LEAST, MOST, 64)
    script.check_seed(seed)
    sd = script.load_model(weights)
    x0 = find_latents(sd, image, number, seed)
    x = walk(x0, sd.alphas, np.random.default_rng(seed))
    right, wrong = Schedule("√β linear (SD)", sd.alphas), Schedule("β linear", straight_betas())
    seen = look(x, x0, right)
    missed = {table.name: misses(x, x0, table.alphas) for table in (right, wrong)}
    folder = script.make_folder(out, "test_noise_schedule", image.stem if image else "scenes")
    with script.saving_into(folder):
        decoded = decode(sd, x[:, 0])
        title = finding(missed[right.name], missed[wrong.name], sd.alphas)
        sheet = figures.forward_sheet(decoded, seen, right, wrong, float(x0.var()), title)
        script.save_figure(sheet, folder / "schedule.png")
        save_file({"x0": x0, "x": x, "pictures": decoded}, folder / "walk.safetensors")
    tell(seen, sd.alphas, float(x0.var()), missed[right.name])
    script.conclude(
        title,
        f"the wrong table, β linear: {np.abs(missed[wrong.name]).max():.0f} standard errors off",
        picture=folder / "schedule.png",
        tensors=folder / "walk.safetensors",
    )
    check(missed[right.name], missed[wrong.name])


def find_latents(sd: "StableDiffusion", image: Path | None, number: int, seed: int) -> np.ndarray:
    """The latents to walk from, (number, h, w, 4): the picture's, again and again, or scenes'."""
    if image is not None:
        only = sd.encode_image(read_image(image, sd.size)[None])
        return np.repeat(only, number, axis=0)
    return sd.encode_image(np.stack([render(scene) for scene in scenes(seed, number)]))


# --- the walk, and what the formula says of it -------------------------------------------------


def walk(x0: np.ndarray, alphas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Latents (b, h, w, c) at each of STOPS, (stops, b, h, w, c), one small step after the other:
    arXiv 2006.11239, eq. 2, whose 1 − β is what the table loses from one timestep to the next."""
    x, seen = x0, []
    for t, stay in enumerate(alphas / np.concatenate([[1.0], alphas[:-1]])):
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        x = np.float32(np.sqrt(stay)) * x + np.float32(np.sqrt(1 - stay)) * noise
        if t in STOPS:
            seen.append(x)
    return np.stack(seen)


def straight_betas() -> np.ndarray:
    """(1000,) ᾱ of a table with the same ends in which β, not √β, grows linearly."""
    return np.cumprod(1 - np.linspace(0.00085, 0.012, 1000))


def look(x: np.ndarray, x0: np.ndarray, table: Schedule) -> Seen:
    """What x (stops, b, h, w, c) is made of: x0's amplitude by least squares, and the rest."""
    flat, clean = x.reshape(len(x), -1).astype(np.float64), x0.ravel().astype(np.float64)
    share = flat @ clean / (clean @ clean)
    rest = flat - np.sqrt(table.alphas[list(STOPS)])[:, None] * clean
    return Seen(np.array(STOPS), share, rest.var(axis=1), flat.var(axis=1), flat)


def misses(x: np.ndarray, x0: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """The noise that the formula finds in x: by how many standard errors its mean, its variance
    and its correlation with x0 are off those of a standard normal one, (stops, 3)."""
    clean = x0.astype(np.float64)
    aside = (clean - clean.mean()) / clean.std()
    rows = []
    for t, at_t in zip(STOPS, x.astype(np.float64), strict=True):
        noise = scheduler.predict_eps(at_t, clean, t, alphas)
        n = noise.size
        off = noise.mean(), (noise.var() - 1) / np.sqrt(2), np.mean(noise * aside)
        rows.append(np.sqrt(n) * np.array(off))
    return np.array(rows)


def check(right: np.ndarray, wrong: np.ndarray) -> None:
    """Raises SystemExit where the formula misses the walk, or the wrong table does not."""
    if np.abs(right).max() > CHANCE:
        raise SystemExit("the formula failed: x_t is not what it says")
    if np.abs(wrong).max() <= CHANCE:
        raise SystemExit("the control failed: a wrong schedule fits as well as the right one")


# --- telling -----------------------------------------------------------------------------------


def tell(seen: Seen, alphas: np.ndarray, x0_variance: float, missed: np.ndarray) -> None:
    print(
        "   t      ᾱ   SNR, dB   √ᾱ, measured   1−ᾱ, measured   var(x), formula"
        "   kurtosis   standard errors"
    )
    for i, t in enumerate(seen.t):
        alpha = alphas[t]
        form = measure.normality(seen.values[i])
        print(
            f"{t:4} {alpha:.4f} {figures.decibel(t, alphas):+9.1f} "
            f"{alpha**0.5:7.3f} {seen.share[i]:8.3f} {1 - alpha:7.4f} {seen.noise[i]:8.4f} "
            f"{seen.variance[i]:8.3f} {1 - alpha + alpha * x0_variance:8.3f} "
            f"{form.excess_kurtosis:+9.2f} {np.abs(missed[i]).max():12.1f}"
        )
    end = scheduler.snr(len(alphas) - 1, alphas)
    print(f"the last timestep's SNR: {end:.4f} (arXiv 2305.08891: 0.0047)")


def finding(right: np.ndarray, wrong: np.ndarray, alphas: np.ndarray) -> str:
    return (
        f"A thousand small steps land where the formula says: off by {np.abs(right).max():.1f} "
        f"standard errors at most (with β linear: {np.abs(wrong).max():.0f}); at the end "
        f"{100 * alphas[-1] ** 0.5:.1f} % of the picture's amplitude is still there"
    )


if __name__ == "__main__":
    script.run(main)
