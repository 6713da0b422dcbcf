"""Is there a picture between two seeds?

The noise of a seed A is led over to that of a seed B in even steps, and each point is drawn with
the same prompt. The straight way shortens the noise: half way between two independent noises it
has √½ of their norm, and the model was never shown a start so quiet. The way along the sphere
(Shoemake, SIGGRAPH 1985; so used in DDIM, arXiv 2010.02502) keeps the norm. The noise is one vector
for this.

The strips show the first pair of noises. The curves are means over pairs, with standard errors: how
far the pictures are from A's and from B's, and how far each is from the one before it (dashed: if
all steps were even); the norm of the noise, and the contrast of the picture (the deviation of each
channel over the picture), both as a share of what they are at the ends. For the phantom, also how
many pictures show what the prompt names. The control: both ends of both ways must be the pictures
that the seeds give themselves, bit for bit.

The phantom places things as the noise says: a thing that stands elsewhere in B must get there, or
fade here and appear there. SD 1.x has softer scenes to lead through.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures.interpolation import Panel, distance_panels, way_sheet
from phantom.prompts import shown
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import script
from xray.measure import standard_error
from xray.methods.drawing import decode, draw
from xray.methods.interpolation import (
    WAYS,
    Along,
    jumps,
    largest_step,
    measure_along,
    shares_of,
    walk,
)

EXAMPLE = "a rabbit on a purple background"
Values = Mapping[str, np.ndarray]  # way → (points, b)


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    seed: int = 0,
    other: int = 1,
    points: int = 9,
    pictures: int = 4,
    steps: int = 10,
    guidance: float = 7.5,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """From one noise to another in small steps, straight and along the sphere.

    Args:
        prompt: what to draw.
        seed: draws the noises A, where the ways begin.
        other: the seed of the noises B, where they end.
        points: of the way, both ends included, 3 to 33.
        pictures: pairs of noises, 2 to 64.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("points", points, 3, 33, 9)
    script.check_range("pictures", pictures, 2, 64, 4)
    if seed == other:
        raise UsageError(f"both seeds are {seed}; try --other {seed + 1}")
    sd = script.load_model(weights)
    context, uncond = np.split(sd.encode_text([prompt, ""]), 2)
    run = {"uncond": uncond, "steps": steps, "guidance": guidance}
    a, b = (sd.draw_noise(one, pictures) for one in (seed, other))
    shares = shares_of(points)
    noise = {
        name: np.stack([walk(*pair, way, shares) for pair in zip(a, b, strict=True)], 1)
        for name, way in WAYS.items()
    }  # (points, b, h, w, c)
    same = np.repeat(context, points, 0)
    sd.denoise(same, latent=a, **run)  # not begun: it looks
    folder = script.make_folder(out, "text_latent_interpolation", prompt)
    with script.saving_into(folder):
        latents = {
            way: np.stack([draw(sd, same, some[:, i], run) for i in range(pictures)], 1)
            for way, some in noise.items()
        }
        ends = draw(sd, same, np.stack([a[0]] * (points - 1) + [b[0]]), run)[[0, -1]]
        images = {way: np.stack([decode(sd, p) for p in some]) for way, some in latents.items()}
        along = {way: measure_along(some) for way, some in images.items()}
        norms = {way: to_ends(norm(some)) for way, some in noise.items()}
        contrasts = {way: to_ends(contrast(some)) for way, some in images.items()}
        right = {way: judge_all(some, prompt) for way, some in images.items()}
        title = finding(along, norms, contrasts, right)
        panels = distance_panels(along, {w: measure_along(some) for w, some in latents.items()})
        panels += own_panels(norms, contrasts, right)
        strips = {way: some[:, 0] for way, some in images.items()}
        heading = f"“{prompt}”, A: seed {seed}, B: seed {other}\n{title}"
        script.save_figure(way_sheet(strips, shares, panels, heading), folder / "way.png")
        arrays = {f"{way.replace(' ', '_')}.noise": some for way, some in noise.items()}
        arrays |= {f"{way.replace(' ', '_')}.latents": some for way, some in latents.items()}
        save_file(arrays, folder / "way.safetensors")
    tell(shares, along, norms, contrasts, right)
    met = all(np.array_equal(some[[0, -1], 0], ends) for some in latents.values())
    script.conclude(
        title,
        f"the ends are the seeds' own pictures: {'' if met else 'not '}bit for bit",
        picture=folder / "way.png",
        tensors=folder / "way.safetensors",
    )
    if not met:
        raise SystemExit("the control failed: the way does not lead from A to B")


# --- measuring ---------------------------------------------------------------------------------


def norm(noise: np.ndarray) -> np.ndarray:
    """The root mean square of each noise (points, b, h, w, c): (points, b)."""
    return np.sqrt((noise.astype(np.float64) ** 2).mean((2, 3, 4)))


def contrast(images: np.ndarray) -> np.ndarray:
    """The deviation of pictures (points, b, H, W, 3) over rows and columns: (points, b)."""
    return np.sqrt(images.astype(np.float64).var((2, 3)).mean(-1))


def to_ends(values: np.ndarray) -> np.ndarray:
    """As a share of the mean of both ends, (points, b)."""
    return values / values[[0, -1]].mean(0)


def judge_all(images: np.ndarray, prompt: str) -> np.ndarray | None:
    """Whether each picture (points, b, H, W, 3) in [-1, 1] shows what the prompt names; or None."""
    found = [shown(to_uint8(some), prompt) for some in images]
    return None if found[0] is None else np.stack(found)


# --- telling -----------------------------------------------------------------------------------


def own_panels(
    norms: Values, contrasts: Values, right: Mapping[str, np.ndarray | None]
) -> list[Panel]:
    """What the ways keep, and where somebody can judge, what they show."""
    kept = {f"norm, {way}": values for way, values in norms.items()}
    kept |= {f"contrast, {way}": values for way, values in contrasts.items()}
    panels = [Panel("noise's norm, picture's contrast", "share of that at the ends", kept)]
    hits = {way: 100.0 * some for way, some in right.items() if some is not None}
    return panels + ([Panel("shows what the prompt names", "judged so, %", hits)] if hits else [])


def tell(
    shares: list[float],
    along: Mapping[str, Along],
    norms: Values,
    contrasts: Values,
    right: Mapping[str, np.ndarray | None],
) -> None:
    for way, one in along.items():
        print(f"{way}: share of B; RMS from A, B and the last, % of full scale; norm; contrast")
        for i, share in enumerate(shares):
            far = "".join(f"{50 * values[i].mean():9.1f}" for values in one).replace("nan", "  –")
            kept = "".join(f"{values[way][i].mean():9.2f}" for values in (norms, contrasts))
            hits = right[way]
            judged = "" if hits is None else f"   {hits[i].sum()} of {hits.shape[1]} judged right"
            print(f"{share:8.3f}{far}{kept}{judged}")


def finding(
    along: Mapping[str, Along],
    norms: Values,
    contrasts: Values,
    right: Mapping[str, np.ndarray | None],
) -> str:
    """What is left half way of norm, contrast and content, and how even the way is."""
    points = len(norms["straight"])
    half, told = points // 2, []
    for way in norms:
        hits, left = right[way], percent(contrasts[way][half])
        judged = "" if hits is None else f", {hits[half].sum()} of {hits.shape[1]} judged right"
        told.append(f"{way} {left} % (norm {norms[way][half].mean():.2f}{judged})")
    straight, sphere = (contrasts[way][half] for way in WAYS)
    more = sphere - straight
    costs = "costs" if more.mean() > 2 * standard_error(more) else "does not clearly cost"
    part = np.mean([largest_step(one)[1] for one in along.values()], axis=0)
    return (
        f"The picture {'jumps' if jumps(part, points) else 'glides'}: one step makes "
        f"{percent(part)} % of all that it changes (even steps: {100 / (points - 1):.0f} %); half "
        f"way it keeps of its contrast {', '.join(told)}: shorter noise {costs} contrast"
    )


def percent(values: np.ndarray) -> str:
    return f"{100 * values.mean():.0f} ± {100 * standard_error(values):.0f}"


if __name__ == "__main__":
    script.run(main)
