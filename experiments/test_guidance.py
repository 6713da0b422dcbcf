"""What does guidance do, and where does it begin to hurt?

At each step the model predicts the noise twice, without the words and with them, and the difference
of the two is exaggerated: ε = ε_uncond + guidance · (ε_cond − ε_uncond) (Ho & Salimans, arXiv
2207.12598). A film of one run gives the size of each over the steps: their root mean square, which
is 1 for normal noise. Then the same noises are drawn into pictures at growing guidance. Too much of
it drives colours to the ends of their range, where they are cut off: a pixel is saturated if one of
its three values is 0 or 255. Saturation starts where the share of such pixels exceeds that of the
least guidance by two standard errors, picture by picture, and does so for all that is above.

Read the sheet from the pictures down: small curves of the difference mean that the words move
little, and that the guidance has much to do; bars are standard errors, the dashed line is the least
guidance. Whether a picture shows what the prompt names is judged for the phantom only, which is
trained on flat and saturated colours and bears more guidance than a model of photographs. The
control has the same words on both sides: guidance must then change nothing but the rounding.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.figure import Figure
from safetensors.numpy import save_file

from experiments.figures import guidance as figures
from phantom.prompts import shown
from stable_diffusion_tf.errors import UsageError
from xray import measure, rounding, script
from xray.film import Film
from xray.methods.drawing import draw, paint
from xray.rounding import Held

EXAMPLE = "a rabbit left of a strawberry on a purple background"
SCALES = (1.0, 2.0, 4.0, 7.5, 12.0, 20.0)


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    scales: tuple[float, ...] = SCALES,
    guidance: float = 7.5,
    pictures: int = 8,
    steps: int = 25,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """The same noises drawn with more and more guidance.

    Args:
        prompt: what to draw.
        scales: of the guidance, rising; the first is what the others are compared with.
        guidance: of the run that is filmed.
        pictures: drawn at each scale, 2 or more.
        steps: steps from noise to picture, 1 to 1000.
        seed: draws the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    check(scales, pictures)
    sd = script.load_model(weights)
    if sd.unet_config.time_cond_proj_dim:
        raise UsageError(f"{weights} is told the guidance and has no ε_uncond; name other weights")
    context, uncond = np.split(sd.encode_text([prompt, ""]), 2)
    noise = sd.draw_noise(seed, pictures)
    for scale in (*scales, guidance):
        sd.denoise(context, uncond, steps, scale)  # not begun: it looks
    folder = script.make_folder(out, "test_guidance", prompt)
    with script.saving_into(folder):
        film = Film.shoot(sd, prompt, steps=steps, guidance=guidance, seed=seed, out=folder)
        runs = [{"steps": steps, "guidance": scale} for scale in scales]
        same = np.repeat(context, pictures, 0)
        images = np.stack([paint(sd, same, noise, {"uncond": uncond, **run}) for run in runs])
        twins = np.concatenate([noise[:1], rounding.nudged(noise[:1])])
        alike = [draw(sd, same[:2], twins, {"uncond": context, **run}) for run in runs]
        sizes, ends = measure_noises(film), saturation(images)
        right = judge_all(images, prompt)
        start = find_onset(ends)
        finding = f"“{prompt}”: {tell_words(sizes)}; {tell_onset(scales, start)}"
        figure = draw_sheet(images, sizes, scales, ends, right, finding)
        script.save_figure(figure, folder / "guidance.png")
        save_file({"pictures": images}, folder / "pictures.safetensors")
    tell(sizes, scales, ends, right)
    control = hold_all(alike)
    script.conclude(
        finding,
        f"the same words on both sides, at every guidance: {control}",
        picture=folder / "guidance.png",
        tensors=folder / "pictures.safetensors",
        film=folder,
    )
    if not control.passed:
        raise SystemExit("the control failed: guidance changed a picture with nothing to guide it")


def check(scales: Sequence[float], pictures: int) -> None:
    if len(scales) < 2 or any(b <= a for a, b in pairwise(scales)):
        raise UsageError("scales are two or more that rise; try --scales 1 4 12")
    if scales[0] <= 0:
        raise UsageError(f"a scale of {scales[0]:g} is not above 0; try 1, which is no guidance")
    if pictures < 2:
        raise UsageError(f"{pictures} pictures have no standard error; try --pictures 8")


# --- measuring ---------------------------------------------------------------------------------


def measure_noises(film: Film) -> dict[str, np.ndarray]:
    """What is predicted → its RMS at each step, (steps,)."""
    uncond, cond, guided = (film.read(name) for name in ("eps_uncond", "eps_cond", "eps"))
    sizes = {
        "ε_uncond": uncond,
        "ε_cond": cond,
        "ε_cond − ε_uncond": cond - uncond,
        f"ε at guidance {film.facts['guidance']:g}": guided,
    }
    return {name: np.sqrt(np.mean(eps**2, axis=(1, 2, 3, 4))) for name, eps in sizes.items()}


def saturation(images: np.ndarray) -> np.ndarray:
    """The share of pixels with a value at an end of its range, in per cent: (…, H, W, 3) uint8 →
    (…)."""
    ends = np.any((images == 0) | (images == 255), axis=-1)
    return 100 * ends.mean(axis=(-2, -1))


def find_onset(ends: np.ndarray) -> int | None:
    """The first scale from which on more is saturated than at the least, by two standard errors of
    the difference; ends: (scales, pictures) from the same noises."""
    more = ends - ends[0]
    beyond = more.mean(1) > 2 * more.std(1, ddof=1) / more.shape[1] ** 0.5
    start = len(beyond) - int(np.argmin(beyond[::-1]))  # beyond[0] is always False
    return start if start < len(beyond) else None


def hold_all(alike: Sequence[np.ndarray]) -> Held:
    """How far the ends at each scale are from those at the first, and how far rounding alone
    reaches: for each scale one picture in two rows, (2, h, w, c), one last bit apart at first."""
    apart = max(float(measure.gap(one[0], alike[0][0]).max()) for one in alike)
    return Held(apart, max(rounding.spread(one) for one in alike))


def judge_all(images: np.ndarray, prompt: str) -> np.ndarray | None:
    """Whether each picture shows what the prompt names, (scales, pictures) bool; or None."""
    verdicts = [shown(some, prompt) for some in images]
    return None if verdicts[0] is None else np.stack(verdicts)


# --- telling -----------------------------------------------------------------------------------


def tell(
    sizes: dict[str, np.ndarray],
    scales: Sequence[float],
    ends: np.ndarray,
    right: np.ndarray | None,
) -> None:
    print(f"{'RMS of the noise':24}{'first step':>11}{'half way':>11}{'last step':>11}")
    for name, size in sizes.items():
        print(f"{name:24}{size[0]:11.3f}{size[len(size) // 2]:11.3f}{size[-1]:11.3f}")
    for label in labels_of(scales, ends, right):
        print(label.replace("\n", ", "))


def labels_of(scales: Sequence[float], ends: np.ndarray, right: np.ndarray | None) -> list[str]:
    labels = [
        f"guidance {scale:g}\n{share:.2f} % saturated"
        for scale, share in zip(scales, ends.mean(1), strict=True)
    ]
    if right is None:
        return labels
    counts = zip(labels, right.sum(1), strict=True)
    return [f"{label}\n{count} of {right.shape[1]} judged right" for label, count in counts]


def tell_words(sizes: dict[str, np.ndarray]) -> str:
    share = sizes["ε_cond − ε_uncond"] / sizes["ε_cond"]
    most = int(np.argmax(share))
    return (
        f"the words move the noise most in step {most + 1} of {len(share)}, "
        f"by {100 * share[most]:.0f} %"
    )


def tell_onset(scales: Sequence[float], start: int | None) -> str:
    if start is None:
        return f"no saturation up to guidance {scales[-1]:g}"
    return f"saturation starts at guidance {scales[start]:g}"


def draw_sheet(
    images: np.ndarray,
    sizes: dict[str, np.ndarray],
    scales: Sequence[float],
    ends: np.ndarray,
    right: np.ndarray | None,
    title: str,
) -> Figure:
    rates = {"saturated pixels, %": ends}
    if right is not None:
        rates["pictures judged right, %"] = 100.0 * right
    labels = labels_of(scales, ends, right)
    return figures.guidance_sheet(images[:, 0], labels, sizes, scales, rates, title)


if __name__ == "__main__":
    script.run(main)
