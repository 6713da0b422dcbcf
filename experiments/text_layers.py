"""In which layer of the text encoder does the thing appear?

The text encoder's layers each add something to what came in. Here the layers after the first, the
second … are silenced: they add nothing, so the state before them goes through the final norm as it
is, and the UNet draws from that. Each row is a prompt, each column the last layer that acts, the
noise the same in a row. On the phantom the judge says which pictures show all things and the
background that the prompt names (✓); the curve is their share, the mean over prompts with its
standard error. Below, the cosine of each context with the whole encoder's, of all 77 vectors as
one; elsewhere this alone is the number.

Diffusion Lens (Toker et al., arXiv 2403.05846) found that in Stable Diffusion 2.1 and DeepFloyd
things appear late, first as a bag of words, then put together rightly, and that prompts of more
parts take more layers. Their encoders have over twenty layers, trained on texts of all kinds; the
phantom's has three, taught 80 words and who stands where, and need not share the work that way.

The control: with no layer silenced by the same means, context and pictures must be the plain ones
but for rounding, which may move a pixel by one level of 255.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.figure import Figure
from safetensors.numpy import save_file

from experiments.figures import text as figures
from experiments.figures.text import Row
from phantom.prompts import asked, shown
from xray import measure, rounding, script
from xray.measure.telling import with_error
from xray.methods.text_layers import find_onset, from_layers, likeness, paint_each

EXAMPLES = (
    "a cat on a blue background",
    "a rabbit left of a strawberry on a purple background",
    "a house on a pink background",
    "a robot right of a tree on a gray background",
    "a pizza on a green background",
    "a dog above a mushroom on a white background",
    "a big fish on a brown background",
    "a star left of a car on a black background",
)
DIGITS = {"cosine": 2}  # of what is not in per cent
ROWS, COLUMNS = 4, 7  # at most, on the sheet


def main(
    prompts: Annotated[tuple[str, ...], tyro.conf.Positional] = EXAMPLES,
    /,
    pictures: int = 2,
    steps: int = 12,
    guidance: float = 7.5,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Pictures from each layer of the text encoder.

    Args:
        prompts: what to draw.
        pictures: for each prompt and layer, 1 to 16.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated; 1 is not at all.
        seed: draws the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("pictures", pictures, 1, 16, 2)
    script.check_seed(seed)
    sd = script.load_model(weights)
    nothing = np.zeros((1, 1, 1), np.float32)
    sd.denoise(nothing, nothing, steps, guidance, seed=seed, progress=list)  # not begun: it looks
    texts = [*prompts, ""]
    contexts = from_layers(sd, texts)
    alike = sd.encode_text(texts * len(contexts)).reshape(contexts.shape)  # in the same rows
    plain = alike[-1]
    noise = sd.draw_noise(seed, pictures)
    run = {"uncond": plain[-1:], "steps": steps, "guidance": guidance}
    folder = script.make_folder(out, "text_layers", prompts[0])
    with script.saving_into(folder):
        images = np.stack([paint_each(sd, some[:-1], noise, run) for some in contexts])
        title = report(prompts, contexts[:, :-1], images, folder)
        again = paint_each(sd, plain[:-1], noise, run)
    control = rounding.hold(contexts[-1], plain, alike)
    levels = measure.gap(images[-1], again).max()
    script.conclude(
        title,
        f"no layer silenced, by the same means: the context, {control}; the pictures differ by "
        f"{levels:g} of 255",
        picture=folder / "layers.png",
        tensors=folder / "layers.safetensors",
    )
    if not (control.passed and levels <= 1):
        raise SystemExit("the control failed: what silences a layer changes the others too")


def report(prompts: Sequence[str], contexts: np.ndarray, images: np.ndarray, folder: Path) -> str:
    """The sheet and the arrays, on the terminal the numbers; returns the finding. contexts:
    (layers, b, 77, width); images: (layers, b, n, H, W, 3) uint8."""
    layers = ["embeddings", *(f"layer {i + 1}" for i in range(len(contexts) - 1))]
    alike, right = likeness(contexts), judge_all(images, prompts)
    curves, title = curves_of(prompts, alike, right), finding(layers, alike, right)
    sheet = draw(prompts, images, layers, right, curves, title)
    script.save_figure(sheet, folder / "layers.png")
    save_file({"contexts": contexts, "pictures": images}, folder / "layers.safetensors")
    tell(layers, curves)
    return title


# --- measuring ---------------------------------------------------------------------------------


def judge_all(images: np.ndarray, prompts: Sequence[str]) -> np.ndarray | None:
    """Whether each picture shows what its prompt names, (layers, b, n) bool; None where that is not
    known of every prompt. images: (layers, b, n, H, W, 3) uint8."""
    verdicts = [[shown(some, p) for some, p in zip(row, prompts, strict=True)] for row in images]
    return None if any(v is None for v in verdicts[0]) else np.array(verdicts)


# --- telling -----------------------------------------------------------------------------------


def curves_of(
    prompts: Sequence[str], alike: np.ndarray, right: np.ndarray | None
) -> dict[str, dict[str, np.ndarray]]:
    """What is measured → group of prompts → values (layers, prompts)."""
    curves = {"cosine with the whole encoder's context": {"cosine": alike}}
    if right is None:
        return curves
    shares = 100 * right.mean(2)
    count = np.array([len(asked(prompt)[0]) for prompt in prompts])
    groups = {"all prompts": shares}
    if len(set(count)) > 1:
        groups |= {
            f"{n} thing{'s' if n > 1 else ''}": shares[:, count == n] for n in sorted({*count})
        }
    return {"pictures that show what is asked, %": groups} | curves


def tell(layers: Sequence[str], curves: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    columns = [column for groups in curves.values() for column in groups.items()]
    print(" " * 12 + "".join(f"{name:>18}" for name, _ in columns))
    for i, layer in enumerate(layers):
        told = (with_error(values[i], DIGITS.get(name, 0)) for name, values in columns)
        print(f"{layer:12}" + "".join(f"{one:>18}" for one in told))


def finding(layers: Sequence[str], alike: np.ndarray, right: np.ndarray | None) -> str:
    """One sentence; its words are chosen by the numbers."""
    if right is None:
        return (
            f"the context's cosine with the last layer's is {with_error(alike[0], 2)} at the "
            f"embeddings and {with_error(alike[-2], 2)} one layer before the last"
        )
    shares = [with_error(100 * row, 0, "%") for row in right.mean(2)]
    onset = find_onset(right.mean((1, 2)))
    if onset is None:
        return "the thing appears in no layer, not even with the last"
    if onset == 0:
        return (
            f"the thing is there before the first layer: {shares[0]} of the pictures from the bare "
            f"embeddings show what is asked, {shares[-1]} of those from the last layer"
        )
    before = f"the {layers[0]} alone" if onset == 1 else layers[onset - 1]
    return (
        f"the thing appears with {layers[onset]}: {shares[onset]} of the pictures from it show "
        f"what is asked, {shares[onset - 1]} from {before}, {shares[-1]} from the last layer"
    )


def draw(
    prompts: Sequence[str],
    images: np.ndarray,
    layers: Sequence[str],
    right: np.ndarray | None,
    curves: Mapping[str, Mapping[str, np.ndarray]],
    title: str,
) -> Figure:
    """The first picture of some prompts and layers, and the curves of all."""
    at = np.unique(np.linspace(0, len(layers) - 1, min(COLUMNS, len(layers))).round().astype(int))
    marks = (
        np.full(images.shape[:2], "")
        if right is None
        else np.where(right[..., 0], "✓ as asked", "✗")
    )
    rows = [Row(prompt, images[at, i, 0], marks[at, i]) for i, prompt in enumerate(prompts[:ROWS])]
    return figures.layers_sheet(rows, [layers[i] for i in at], layers, curves, title)


if __name__ == "__main__":
    script.run(main)
