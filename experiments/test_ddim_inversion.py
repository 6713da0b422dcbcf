"""Can a picture be walked back to its noise, and forth again?

Without fresh noise DDIM's steps are a path, and a path can be walked the other way: from the latent
of a picture, step by step, to a noise that the model would draw it from (Song et al., arXiv
2010.02502, section 4.3 and eq. 13). Each step back guesses the noise at its far end by that at its
near end; what that costs is seen by drawing from the noise that was found, with the same words,
steps and guidance. The curves are the PSNR of what comes back, against the picture; the upper line
is what encoding and decoding leave of it, the lower one is the control. More steps are smaller
guesses, and guidance exaggerates each. Where the noise found is not normal, or its neighbouring
cells are alike, it is none that the model was trained on: see it where the picture is flat. Errors
are standard errors over the pictures, by default new scenes of the phantom's world, each walked
with its own caption.

Literature, not checked at its source: at guidance 7.5 SD 1.x gives a photograph back with about 14
dB, and with 26 if the empty prompt is optimised for it (arXiv 2211.09794; there the way to the
noise has no guidance, only the way back has). The phantom's pictures are small and mostly flat
colour, which the words name, so that it gives back more.

The control: fresh noise with the same words must not give the picture back, or the noise that was
found would hold nothing of it; and the same walk twice must end in the same noise, bit for bit.
"""

from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import ddim_inversion as figures
from experiments.figures.ddim_inversion import Walks
from phantom.world import for_evaluation, render, scenes
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_model
from xray import measure, script
from xray.measure.telling import with_error
from xray.methods.ddim_inversion import neighbour_correlation, there_and_back
from xray.methods.drawing import decode, draw, encode
from xray.pictures import read_image

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

FAR = 3.0  # dB; fresh noise must give back so much less
MOST = 64  # pictures


def main(
    image: Annotated[Path | None, tyro.conf.Positional] = None,
    /,
    prompt: str = "",
    steps: tuple[int, ...] = (5, 10, 25),
    guidance: tuple[float, ...] = (1.0, 3.0, 7.5),
    number: int = 4,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Pictures walked back to their noise, and drawn from it again.

    Args:
        image: a picture; by default scenes of the phantom's world.
        prompt: what that picture shows.
        steps: of the walks, rising, each from 1 to 1000.
        guidance: of the walks, rising, two or more; 1 is none.
        number: how many scenes, 1 to 64.
        seed: draws the scenes, and the control's noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    check_input(image, prompt, steps, guidance)
    script.check_range("number", number, 1, MOST, 4)
    script.check_seed(seed)
    sd = script.load_model(weights)
    if sd.unet_config.time_cond_proj_dim:
        raise UsageError(f"{weights} takes steps that have no way back; name other weights")
    images, prompts = find_pictures(sd.size, image, prompt, number, seed)
    nothing = np.zeros((1, 1, 1), np.float32)
    for count, scale in product(steps, guidance):
        sd.denoise(nothing, nothing, count, scale)  # not begun: it looks
    contexts, uncond = np.split(sd.encode_text([*prompts, ""]), [-1])
    folder = script.make_folder(out, "test_ddim_inversion", image.stem if image else "scenes")
    with script.saving_into(folder):
        walks = walk_all(sd, images, contexts, uncond, steps, guidance, seed)
        title = finding(walks)
        sheet = figures.inversion_sheet(walks, title)
        script.save_figure(sheet, folder / "inversion.png")
        arrays = {k: v for k, v in walks._asdict().items() if isinstance(v, np.ndarray)}
        save_file(arrays, folder / "inversion.safetensors")
    tell(walks)
    script.conclude(
        title,
        f"fresh noise gives back {with_error(walks.chance, unit='dB')}; "
        f"the same walk twice ends in {'the same noise' if walks.same else 'two noises'}",
        picture=folder / "inversion.png",
        tensors=folder / "inversion.safetensors",
    )
    check_control(walks)


def check_input(
    image: Path | None, prompt: str, steps: Sequence[int], guidance: Sequence[float]
) -> None:
    if image is not None and not prompt.strip():
        raise UsageError(f"say what {image} shows, as guidance needs words: --prompt 'a cat'")
    if image is None and prompt:
        raise UsageError("the scenes have captions of their own; name a picture with --prompt")
    for name, values, least in (("steps", steps, 1), ("guidance", guidance, 2)):
        if len(values) < least or any(b <= a for a, b in pairwise(values)):
            raise UsageError(f"--{name} takes {least} or more that rise; try --{name} 1 5 10")


def find_pictures(
    size: int, image: Path | None, prompt: str, number: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """(n, H, W, 3) in [-1, 1], and what they show: the picture, or scenes that are new."""
    if image is not None:
        return to_model(read_image(image, size)[None], 1), [prompt]
    found = scenes(seed, number, for_evaluation)
    images = to_model(np.stack([render(scene) for scene in found]), 1)
    return images, [scene.caption for scene in found]


# --- walking -----------------------------------------------------------------------------------


def walk_all(
    sd: "StableDiffusion",
    images: np.ndarray,
    contexts: np.ndarray,
    uncond: np.ndarray,
    steps: Sequence[int],
    guidance: Sequence[float],
    seed: int,
) -> Walks:
    """Images (n, H, W, 3) in [-1, 1] walked with all numbers of steps and all guidance."""
    latents = encode(sd, images)
    runs = [
        [{"uncond": uncond, "steps": count, "guidance": scale} for count in steps]
        for scale in guidance
    ]
    walked = [[there_and_back(sd, contexts, latents, run) for run in row] for row in runs]
    psnr = np.array([[measure.psnr(images, picture) for _, picture in row] for row in walked])
    noises, pictures = zip(*(row[-1] for row in walked), strict=True)
    again, _ = there_and_back(sd, contexts, latents, runs[0][0])
    same = np.array_equal(again, walked[0][0][0])
    fresh = sd.draw_noise(seed, *images.shape[:3])
    plain, other = decode(sd, latents), decode(sd, draw(sd, contexts, fresh, runs[0][-1]))
    ceiling, chance = (measure.psnr(images, made) for made in (plain, other))
    return Walks(
        steps, guidance, images, plain, np.stack(pictures), other, np.stack(noises), fresh,
        psnr, ceiling, chance, same,
    )  # fmt: skip


def check_control(walks: Walks) -> None:
    """Raises SystemExit where fresh noise does nearly as well, or a walk has two ends."""
    if not walks.same:
        raise SystemExit("the control failed: the same walk twice ended in two noises")
    if walks.psnr[:, -1].mean(axis=1).max() - walks.chance.mean() < FAR:
        raise SystemExit("the control failed: fresh noise gives the picture back nearly as well")


# --- telling -----------------------------------------------------------------------------------


def tell(walks: Walks) -> None:
    print(f"PSNR, dB         {'  '.join(f'{count:>6} steps' for count in walks.steps)}")
    for scale, row in zip(walks.guidance, walks.psnr, strict=True):
        print(f"guidance {scale:<6g}  {'  '.join(f'{with_error(dB):>12}' for dB in row)}")
    print(f"encoded, decoded {with_error(walks.ceiling):>12}")
    print("noise found      deviation   excess kurtosis   Jarque-Bera   neighbours alike")
    noises = {f"guidance {s:g}": x for s, x in zip(walks.guidance, walks.noise, strict=True)}
    for name, noise in {**noises, "true noise": walks.fresh}.items():
        form = measure.normality(noise)
        alike = with_error(neighbour_correlation(noise), 3)
        print(
            f"{name:16} {form.std:9.3f} {form.excess_kurtosis:+14.2f} "
            f"{form.jarque_bera:15.1f}     {alike}"
        )
    print(f"normal: Jarque-Bera below {form.critical:.1f}")


def finding(walks: Walks) -> str:
    first, last = walks.psnr[0, -1], walks.psnr[-1, -1]
    alike = [with_error(neighbour_correlation(x), 2) for x in (walks.noise[0], walks.noise[-1])]
    return (
        f"In {walks.steps[-1]} steps there and back a picture returns with "
        f"{with_error(first, unit='dB')} at guidance {walks.guidance[0]:g} (the round trip through "
        f"the latent alone: {with_error(walks.ceiling)}), with {with_error(last, unit='dB')} at "
        f"{walks.guidance[-1]:g}; neighbouring cells of the noise found correlate by {alike[0]} "
        f"and {alike[1]}, of true noise by {with_error(neighbour_correlation(walks.fresh), 2)}"
    )


if __name__ == "__main__":
    script.run(main)
