"""How much noise in the latent does the decoder forgive?

A picture is encoded, and a share of the cells of its latent, drawn by lot and rounded to whole
cells, is replaced: latent·(1 − mask) + amplitude·deviation·noise·mask, where the mask takes all
channels of a cell, the noise is standard normal and the deviation is that of the latents' values.
An amplitude of 0 puts zeros there, 1 noise as strong as the latent, 4 far more than the decoder
ever saw. A larger share takes the cells of the smaller ones and more, and the same noise grows with
the amplitude. Rows are shares and columns amplitudes, of the pictures as of their PSNR in dB
against the picture that was encoded, a mean over pictures.

The number is the share at which the squared error has doubled, which is 3 dB less PSNR: found for
each picture, straight between the shares that were tried, and told with its standard error. It is
small, since a clean latent has no spare copy of a cell; the amplitude of 0 tells how much is lost
by what is missing, and not by noise. Holes do not stay where they are: the brighter the noise, the
more it tints the whole picture, over which the decoder normalises. This is the sweep of the seed
repository's script; no paper gives its numbers. The phantom's cell is 4 pixels wide and SD 1.x's 8.

The control: a share of 0 must give the plain round trip, bit for bit, whatever the amplitude.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import image_decoder as figures
from experiments.figures.image_decoder import Sweep
from phantom.world import for_evaluation, render, scenes
from stable_diffusion_tf.images import to_model
from xray import measure, script
from xray.measure.telling import with_error
from xray.methods.drawing import decode, encode
from xray.pictures import read_pictures
from xray.tensor_debug import DebugTensor

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

SHARES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)
AMPLITUDES = (0, 0.25, 0.5, 1, 2, 4)  # deviations of the latent
LEAST, MOST = 2, 256  # pictures
DOUBLED = 10 * np.log10(2)  # dB that are lost where the squared error is doubled


def main(
    images: Annotated[Path | None, tyro.conf.Positional] = None,
    /,
    number: int = 16,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Latents with more and more cells replaced by stronger and stronger noise, decoded.

    Args:
        images: a picture or a folder of pictures; by default scenes of the phantom's world.
        number: how many scenes, pictures of the folder, or draws of the noise on the one picture.
        seed: draws the scenes, the cells and the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("number", number, LEAST, MOST, 16)
    script.check_seed(seed)
    sd = script.load_model(weights)
    pictures = to_model(find_pictures(images, sd.size, number, seed), sd.vae_config.factor)
    latents = encode(sd, pictures)
    subject = images.stem if images else "scenes"
    folder = script.make_folder(out, "test_image_encoder_noise_corruption", subject)
    with script.saving_into(folder):
        sweep, off = corrupt_and_decode(sd, latents, pictures, seed)
        title = finding(sweep)
        script.save_figure(figures.corruption_sheet(sweep, DOUBLED, title), folder / "noise.png")
        arrays = {"latents": latents, "psnr": sweep.psnr, "pictures": sweep.pictures}
        save_file(arrays, folder / "noise.safetensors")
    tell(sweep)
    script.conclude(
        title,
        f"no cell replaced, at every amplitude: {off:g} from the plain round trip",
        picture=folder / "noise.png",
        tensors=folder / "noise.safetensors",
    )
    if off:
        raise SystemExit("the control failed: nothing was replaced, and the picture changed")


def find_pictures(place: Path | None, size: int, number: int, seed: int) -> np.ndarray:
    """(n, H, W, 3) uint8: from disk, one alone again and again, or scenes that are new."""
    if place is None:
        return np.stack([render(scene) for scene in scenes(seed, number, for_evaluation)])
    found = read_pictures(place, size, number)
    return found if len(found) > 1 else np.repeat(found, number, axis=0)


# --- replacing ---------------------------------------------------------------------------------


def corrupt_and_decode(
    sd: "StableDiffusion", latents: np.ndarray, images: np.ndarray, seed: int
) -> tuple[Sweep, float]:
    """Latents (n, h, w, c) of images (n, H, W, 3) at every share and amplitude; and the largest
    difference from the plain round trip where the share is 0."""
    plain, deviation = decode(sd, latents), float(latents.std())
    psnr = np.empty((len(SHARES), len(AMPLITUDES), len(latents)))
    shown = np.empty((*psnr.shape[:2], *images.shape[1:]), np.float32)
    off = 0.0
    for place in np.ndindex(psnr.shape[:2]):
        share, amplitude = SHARES[place[0]], AMPLITUDES[place[1]]
        back = decode(sd, replace(latents, share, amplitude * deviation, seed))
        psnr[place], shown[place] = measure.psnr(images, back), back[0]
        if share == 0:
            off = max(off, float(np.abs(back - plain).max()))
    return Sweep(SHARES, AMPLITUDES, shown, psnr), off


def replace(latents: np.ndarray, share: float, deviation: float, seed: int) -> np.ndarray:
    """A share of the cells of each latent (n, h, w, c) replaced by normal noise: cells and noise
    depend on the seed and on which latent it is, and on nothing else."""
    made = []
    for i, latent in enumerate(latents):
        rng = np.random.default_rng([seed, i])
        made.append(DebugTensor(latent, space="latent").corrupt(share, deviation, rng).array)
    return np.stack(made)


def share_where_lost(psnr: np.ndarray, shares: tuple[float, ...], loss: float) -> np.ndarray:
    """The share at which so many dB of the first are lost, straight between two that were tried,
    (shares, n) → (n,); 1 where they are lost at none."""
    lost = psnr[0] - psnr
    found = np.ones(psnr.shape[1])
    for i, curve in enumerate(lost.T):
        beyond = np.flatnonzero(curve >= loss)
        if len(beyond):
            pair = slice(beyond[0] - 1, beyond[0] + 1)
            found[i] = np.interp(loss, curve[pair], shares[pair])
    return found


# --- telling -----------------------------------------------------------------------------------


def told(sweep: Sweep, column: int) -> str:
    """The share at which the error doubles at an amplitude, in per cent, with its error."""
    found = share_where_lost(sweep.psnr[:, column], sweep.shares, DOUBLED)
    return with_error(100 * found, unit="%")


def tell(sweep: Sweep) -> None:
    plain = with_error(sweep.psnr[0, 0], unit="dB")
    print(f"round trip of {sweep.psnr.shape[2]} latents: {plain} PSNR")
    print("amplitude   error doubled at   dB lost at " + " ".join(f"{s:>6.0%}" for s in SHARES[1:]))
    for i, amplitude in enumerate(sweep.amplitudes):
        lost = (sweep.psnr[0, i] - sweep.psnr[1:, i]).mean(axis=1)
        row = " ".join(f"{value:6.1f}" for value in lost)
        print(f"{amplitude:9g}   {told(sweep, i):>16}              {row}")


def finding(sweep: Sweep) -> str:
    plain = with_error(sweep.psnr[0, 0], unit="dB")
    at = {amplitude: told(sweep, i) for i, amplitude in enumerate(sweep.amplitudes)}
    return (
        f"The squared error of the round trip ({plain}) doubles where noise as strong as the "
        f"latent replaces {at[1]} of the cells; with zeros it takes {at[0]}, with noise 4 times "
        f"as strong {at[4]}"
    )


if __name__ == "__main__":
    script.run(main)
