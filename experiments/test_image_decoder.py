"""What does the decoder make of a latent, and how much of it is linear?

The decoder is a deep network, and yet a matrix can stand in for it: the least-squares map from the
few numbers of a cell to a colour is fitted on half of the pictures, and told to guess what the
decoder paints for the other half. R² is the share of the variance that it explains, of the mean
colours of the cells and of the pixels; the rest is the network's. Then one cell at a time is moved
by normal noise of the latents' deviation: the picture changes around it, and the radius that holds
95 % of the squared change says how far a cell reaches (mean over cells, ± its standard error). Far
away the change is small but not zero: the decoder attends to, and normalises over, the whole.

Top, a row for each picture: as it is decoded, as the matrix has it, and latents that no encoder
makes. Where the right half is set to 0, the colour of the left half, which was not touched, may
change too. For SD 1.x the matrix is [.298 .207 .208] [.187 .286 .173] [−.158 .189 .264] [−.184
−.271 −.473] and its colours correlate with those of photographs by 0.87 to 0.93, an R² of 0.76 to
0.86 (keturn, Hugging Face forum, topic 23204). The phantom's encoder was trained on its own, so its
matrix is another one, and its ten flat backgrounds need not lie in order along any direction.

Intervals are 95 %, over which pictures are held out; fewer than 8 pictures are cut into 16 pieces
each. The control: a map fitted to pictures that were exchanged among the latents must explain not
half as much (below zero: it does worse than one mean colour for all), and a latent of which no cell
is moved must give the same picture, exactly.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import image_decoder as figures
from phantom.world import for_evaluation, render, scenes
from xray import measure, script
from xray.measure.telling import with_error
from xray.methods.drawing import decode, encode
from xray.methods.linear_decoder import LEAST, Linear, fit_and_test, over_pixels
from xray.methods.receptive_field import HELD, Reach, measure_reach
from xray.pictures import read_pictures
from xray.tensor_debug import DebugTensor

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

MOST = 512  # pictures
ROWS = 3  # pictures on the sheet
PROBED = 8  # pictures in which cells are moved


def main(
    images: Annotated[Path | None, tyro.conf.Positional] = None,
    /,
    number: int = 128,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Odd latents decoded, the linear map to colours, and the reach of one cell.

    Args:
        images: a picture or a folder of pictures; by default scenes of the phantom's world.
        number: how many scenes, or pictures of the folder, 8 to 512.
        seed: draws the scenes, the halves, the noise and the cells.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("number", number, LEAST, MOST, 128)
    script.check_seed(seed)
    sd = script.load_model(weights)
    latents = encode(sd, find_pictures(images, sd.size, number, seed))
    rng = np.random.default_rng(seed)
    folder = script.make_folder(out, "test_image_decoder", images.stem if images else "scenes")
    with script.saving_into(folder):
        decoded = decode(sd, latents)
        linear = fit_and_test(latents, decoded, rng)
        reach = measure_reach(sd, latents[:PROBED], rng)
        shown = show_variants(sd, latents[:ROWS], decoded[:ROWS], linear, rng)
        title = finding(linear, reach, latents.shape[-1])
        sheet = figures.decoder_sheet(shown, linear, reach, title)
        script.save_figure(sheet, folder / "decoder.png")
        arrays = {**shown, **tables(linear, reach), "latents": latents, "decoded": decoded}
        save_file(arrays, folder / "decoder.safetensors")
    tell(linear, reach)
    tell_far(shown)
    script.conclude(
        title,
        f"a map fitted to exchanged pictures explains {linear.chance.told}; "
        f"a cell that is not moved changes the picture by {reach.unmoved:g}",
        picture=folder / "decoder.png",
        tensors=folder / "decoder.safetensors",
    )
    check(linear, reach)


def find_pictures(place: Path | None, size: int, number: int, seed: int) -> np.ndarray:
    """(n, H, W, 3) uint8: from disk, or scenes whose pairs of things the model never saw."""
    if place is not None:
        return read_pictures(place, size, number)
    return np.stack([render(scene) for scene in scenes(seed, number, for_evaluation)])


# --- odd latents -------------------------------------------------------------------------------


def show_variants(
    sd: "StableDiffusion",
    latents: np.ndarray,
    decoded: np.ndarray,
    linear: Linear,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """What is done to latents (n, h, w, c), by name → the pictures, (n, H, W, 3) in [-1, 1]."""
    guess = over_pixels(measure.linear_rgb(latents, linear.matrix, linear.bias), decoded)
    odd = {name: decode(sd, x) for name, x in vary(latents, rng).items()}
    return {"decoded": decoded, "the matrix": np.clip(guess, -1, 1), **odd}


def vary(latents: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Latents (n, h, w, c) that no encoder makes, by name."""
    _, h, w, c = latents.shape
    rows, columns = (slice(side // 4, side // 4 + side // 2) for side in (h, w))
    left = np.arange(w)[:, None] < w // 2
    return {
        "normal noise": rng.standard_normal(latents.shape, dtype=np.float32),
        "middle, tiled": DebugTensor(latents, space="latent").tile(rows, columns).array,
        "right half 0": latents * left,
        **{f"channel {i} alone": latents * (np.arange(c) == i) for i in range(c)},
    }


# --- telling -----------------------------------------------------------------------------------


def tables(linear: Linear, reach: Reach) -> dict[str, np.ndarray]:
    return {
        "matrix": linear.matrix,
        "bias": linear.bias,
        "radii": reach.radii,
        "rms": reach.rms,
        "around": reach.around,
    }


def tell(linear: Linear, reach: Reach) -> None:
    print(f"linear map to colours, R² of the cells  {linear.cells.told}")
    print(f"                       R² of the pixels {linear.pixels.told}")
    for name, row in (*enumerate(linear.matrix), ("bias", linear.bias)):
        colours = " ".join(f"{part}{value:+.3f}" for part, value in zip("RGB", row, strict=True))
        print(f"  {name if name == 'bias' else f'channel {name}':10} {colours}")
    last = len(reach.rms) - 1
    print("RMS change, % of full scale, at a distance of")
    for far in sorted({0, reach.factor, 2 * reach.factor, 4 * reach.factor, last}):
        if far <= last:
            print(f"  {far:3} pixels {100 * reach.rms[far]:8.3f}")


def tell_far(shown: dict[str, np.ndarray]) -> None:
    """How much setting the right half to 0 changes the left quarter, which is out of reach of all
    cells but by the whole picture."""
    quarter = shown["decoded"].shape[2] // 4
    before, after = (shown[name][:, :, :quarter] for name in ("decoded", "right half 0"))
    rms = 100 * np.sqrt(np.mean((after - before) ** 2, axis=(1, 2, 3))) / 2
    print(
        f"right half 0: in the pictures shown, the left quarter changes by {rms.min():.1f} to "
        f"{rms.max():.1f} % RMS"
    )


def finding(linear: Linear, reach: Reach, channels: int) -> str:
    return (
        f"A matrix from a cell's {channels} numbers to a colour explains {linear.cells.told} of "
        f"what the decoder paints cell by cell, {linear.pixels.told} pixel by pixel; "
        f"{100 * HELD:.0f} % of what a cell does lies within {with_error(reach.radii)} pixels, "
        f"{reach.radii.mean() / reach.factor:.1f} cells"
    )


def check(linear: Linear, reach: Reach) -> None:
    """Raises SystemExit where exchanged pictures are explained too, or looking changes one."""
    if not linear.chance.value < linear.cells.value / 2:
        raise SystemExit("the control failed: a map fitted to other pictures explains as much")
    if reach.unmoved:
        raise SystemExit("the control failed: the same latent was decoded into two pictures")


if __name__ == "__main__":
    script.run(main)
