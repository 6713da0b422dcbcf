"""Can a word be exchanged and the picture stay?

A prompt drawn with another word is another picture, even from the same noise. Prompt-to-prompt
(Hertz et al., arXiv 2208.01626) draws both at once and lets the new one take over the attention of
the old, for the first share of the steps: where the old looked at its word, the new one looks at
the word that stands in its place (exchange), words that came in keep attention of their own
(refine), and the attention that a word gets is multiplied (weight).

Each column of the sheet is one noise, each row one way to draw it. The white line in the source's
pictures is the mask of the exchanged word: on the phantom the squares where the judge finds the
thing, elsewhere its heat map (xray/attention.py). Bars are how far a picture is from the source
outside of the mask and inside, in per cent of full scale (root mean square): an exchange is good
where outside is short and inside long. On the phantom the judge says whether a picture shows all
that its prompt names. Lines are standard errors over the noises, and say nothing of other prompts.

In the paper the layout stays and weights make an effect stronger or weaker; its code for SD takes
over self-attention too, for a smaller share of the steps. The phantom's padding carries most of the
prompt (text_padding_and_end.py) and is not weighted, so weights do far less here than in SD.

The control takes over the source's attention for the source's own prompt: it must be the picture
that the model draws when nobody looks, but for rounding.
"""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import prompt_to_prompt as figures
from phantom.judge import MARGIN, judge
from phantom.prompts import asked, shown
from phantom.world import SIDE
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import rounding, script
from xray.measure import standard_error
from xray.methods.drawing import decode, draw
from xray.methods.prompt_to_prompt import (
    Row,
    Shares,
    change,
    draw_rows,
    exchanged,
    exchanged_words,
    mask_of,
)

EXAMPLES = (
    "a rabbit left of a strawberry on a purple background",
    "a cat left of a strawberry on a purple background",
    "a small rabbit left of a strawberry on a purple background",
)
PLAIN, EDITED = "exchanged, no edit", "exchanged, edited"
WEIGHTS = (0.0, 2.0, 4.0)
SHOWN = 4  # noises on the sheet
MOST = 4  # things that the judge looks for: the phantom at times draws one twice


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLES[0],
    other: Annotated[str, tyro.conf.Positional] = EXAMPLES[1],
    refined: Annotated[str | None, tyro.conf.Positional] = None,
    /,
    cross: float = 0.8,
    alike: float = 0.4,
    pictures: int = 6,
    steps: int = 10,
    guidance: float = 7.5,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Exchange, add and weight words of a prompt by editing the attention.

    Args:
        prompt: the source.
        other: the source with a word exchanged.
        refined: the source with words added; by default, only for the example.
        cross: share of the steps at which cross-attention is taken over, 0 to 1.
        alike: likewise of self-attention, in the row that takes that over too.
        pictures: noises that are drawn, 2 to 64.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated.
        seed: draws the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("pictures", pictures, 2, 64, 6)
    for option, share in (("cross", cross), ("alike", alike)):
        script.check_range(option, share, 0, 1, 0.8)
    sd = script.load_model(weights)
    if sd.unet_config.time_cond_proj_dim:
        raise UsageError(f"{weights} has no half that hears the prompt alone; name other weights")
    word = exchanged(*sd.tokenize([prompt, other]))
    if refined is None and (prompt, other) == EXAMPLES[:2]:
        refined = EXAMPLES[2]
    rows = make_rows(prompt, other, refined)
    words = exchanged_words(sd.tokenizer, prompt, other)
    run = {"uncond": sd.encode_text([""]), "steps": steps, "guidance": guidance}
    noise = sd.draw_noise(seed, pictures)
    texts = {row.prompt: sd.encode_text([row.prompt]) for row in rows}  # each once: the same bits
    contexts = np.concatenate([texts[row.prompt] for row in rows])
    alone = np.repeat(contexts[:1], len(rows), 0)
    first = np.repeat(noise[:1], len(rows), 0)
    sd.denoise(alone, latent=first, **run)  # not begun: it looks
    folder = script.make_folder(out, "text_prompt_to_prompt", prompt)
    with script.saving_into(folder):
        latents, shots = draw_rows(sd, rows, contexts, word, Shares(cross, alike), noise, run)
        plain, again = (d(sd, alone, first, run) for d in (draw, rounding.redrawn))
        control = rounding.hold(latents[0, :2], plain[:2], [*plain, *again])  # one picture in all
        images = np.stack([decode(sd, some) for some in latents], 1)  # (rows, pictures, H, W, 3)
        masks = np.stack([mask_of(seen, word, images.shape[2:4]) for seen in shots])
        masks = with_squares(masks, to_uint8(images[0]), asked(prompt)[0] - asked(other)[0])
        moved = change(images, masks)
        right = judge_rows(to_uint8(images), rows)
        names = [row.name for row in rows]
        title = finding(words, names, moved, right)
        sheet = figures.edit_sheet(images[:, :SHOWN], masks[:SHOWN], names, moved, right, title)
        script.save_figure(sheet, folder / "edits.png")
        arrays = {"latents": latents, "pictures": to_uint8(images), "masks": masks.astype(np.uint8)}
        save_file(arrays, folder / "edits.safetensors")
    tell(names, moved, right)
    script.conclude(
        title,
        f"the source's own attention taken over: {control}",
        picture=folder / "edits.png",
        tensors=folder / "edits.safetensors",
    )
    if not control.passed:
        raise SystemExit("the control failed: a picture patched with itself is another")


# --- asking, judging ---------------------------------------------------------------------------


def make_rows(prompt: str, other: str, refined: str | None) -> list[Row]:
    rows = [
        Row("source", prompt),
        Row("source, patched\nwith itself", prompt, True, True),
        Row(PLAIN, other),
        Row(EDITED, other, True),
        Row("exchanged, edited,\nself-attention too", other, True, True),
    ]
    if refined is not None:
        rows += [Row("refined, no edit", refined), Row("refined, edited", refined, True)]
    return rows + [Row(f"word × {weight:g}", prompt, True, weight=weight) for weight in WEIGHTS]


def with_squares(masks: np.ndarray, images: np.ndarray, things: Set[str]) -> np.ndarray:
    """In place of a mask (n, H, W) the squares in which the judge finds the things, if it does;
    images: (n, H, W, 3) uint8."""
    if images.shape[1:3] != (SIDE, SIDE):
        return masks
    squares = np.zeros_like(masks)
    for square, image in zip(squares, images, strict=True):
        for thing in (match.thing for match in judge(image, MOST).matches):
            if thing.name in things:
                top, left = max(thing.row - MARGIN, 0), max(thing.column - MARGIN, 0)
                ends = (start + thing.side + MARGIN for start in (thing.row, thing.column))
                square[top : next(ends), left : next(ends)] = True
    found = squares.any((1, 2), keepdims=True)
    return np.where(found, squares, masks)


def judge_rows(images: np.ndarray, rows: Sequence[Row]) -> np.ndarray | None:
    """Whether each picture shows what its prompt names, (rows, n) bool; None: nobody can say."""
    found = [shown(some, row.prompt) for some, row in zip(images, rows, strict=True)]
    return None if any(some is None for some in found) else np.stack(found)


# --- telling -----------------------------------------------------------------------------------


def tell(names: Sequence[str], moved: Mapping[str, np.ndarray], right: np.ndarray | None) -> None:
    print(f"{'change, %':38}{'outside':>13}{'inside':>13}{'' if right is None else '   shown':>8}")
    for i, name in enumerate(names):
        parts = "".join(f"{mean_of(values[i]):>13}" for values in moved.values())
        hits = "" if right is None else f"   {right[i].sum()} of {right.shape[1]}"
        print(f"{' '.join(name.split()):38}{parts}{hits}")


def mean_of(values: np.ndarray) -> str:
    return f"{values.mean():.1f} ± {standard_error(values):.1f}"


def finding(
    words: Sequence[str],
    names: Sequence[str],
    moved: Mapping[str, np.ndarray],
    right: np.ndarray | None,
) -> str:
    """Whether less changes outside with the edit, noise by noise, and by how much."""
    plain, edited = names.index(PLAIN), names.index(EDITED)
    without, along = (moved["outside"][i] for i in (plain, edited))
    less = without - along
    stays = less.mean() > 2 * standard_error(less)
    counts = ("", "")
    if right is not None:
        counts = [f" ({right[i].sum()} of {len(less)} judged right)" for i in (plain, edited)]
    verdict = f"{100 * less.mean() / without.mean():.0f} % less" if stays else "no clear gain"
    return (
        f"“{words[1]}” for “{words[0]}” changes the rest of the picture by {mean_of(without)} % of "
        f"full scale{counts[0]}, with the source's attention by {mean_of(along)} %{counts[1]}: "
        f"{verdict}"
    )


if __name__ == "__main__":
    script.run(main)
