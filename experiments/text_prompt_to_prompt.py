"""Can a word be replaced and the picture stay?

A prompt drawn with another word is another picture, even from the same noise. Prompt-to-prompt
(Hertz et al., arXiv 2208.01626) draws both at once and injects the attention of the source into the
new one for the first share of the steps: where the source attended to its word, the new one attends
to the word in its place (replace), words that came in keep attention of their own (refine), and the
attention that a word gets is multiplied (re-weight).

Each column of the sheet is one noise, each row one way to draw it. The white line is the mask of
the replaced word: on the phantom the square in which template matching finds the thing, or all but
the things where it is the background's colour; elsewhere its heat map. Bars are how far a picture
is from the source outside of the mask and inside (RMS, per cent of full scale): an edit is good
where outside is short and inside long.

In the paper the layout stays and weights make an effect stronger or weaker. With --weights
phantom-registers the padding carries the prompt (text_padding_and_end.py), and is not weighted.
The control injects the source's attention into the source's own prompt: the picture must stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import stable_diffusion_tf
from experiments.figures import prompt_to_prompt as figures
from phantom.prompts import as_asked, mask_between
from stable_diffusion_tf.images import to_uint8
from xray import rounding, script
from xray.measure import Estimate, mean_of
from xray.methods import prompt_to_prompt as p2p
from xray.methods.drawing import decode, draw
from xray.options import EXAMPLE, Batch, Other, Prompt, Refined, check_range
from xray.report import Control, Report

CAT, SMALL = (EXAMPLE.replace("rabbit", word) for word in ("cat", "small rabbit"))
WRONG = "a picture patched with its own attention is another"


@dataclass(frozen=True)
class Options(Batch):
    guided: ClassVar[bool] = True
    renamed: ClassVar = {"--cross": "--cross-replace-steps", "--alike": "--self-replace-steps"}

    prompt: Prompt = EXAMPLE
    """the source."""
    other: Other = CAT
    """the source with a word replaced."""
    refined: Refined = SMALL
    """the source with words added."""
    cross_replace_steps: float = 0.8
    """share of the steps at which cross-attention is injected, 0 to 1."""
    self_replace_steps: float = 0.4
    """likewise of self-attention, in the row that gets that too."""
    steps: int = 10

    def check(self) -> None:
        super().check()
        check_range("cross-replace-steps", self.cross_replace_steps, 0, 1, 0.8)
        check_range("self-replace-steps", self.self_replace_steps, 0, 1, 0.4)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    source, other = options.prompt, options.other
    word = p2p.replaced(*sd.tokenize([source, other]))
    own = source == EXAMPLE or options.refined != SMALL
    rows = p2p.rows_of(source, other, options.refined if own else None)
    run = {"uncond": sd.encode_text(""), "steps": options.steps, "guidance": options.guidance}
    noise = sd.draw_noise(options.seed, options.pictures)
    texts = {row.prompt: sd.encode_text([row.prompt]) for row in rows}  # each once: the same bits
    contexts = np.concatenate([texts[row.prompt] for row in rows])
    alone, first = np.repeat(contexts[:1], len(rows), 0), np.repeat(noise[:1], len(rows), 0)
    sd.denoise(alone, latent=first, **run)  # not begun: it looks
    shares = p2p.Shares(options.cross_replace_steps, options.self_replace_steps)
    latents, shots = p2p.draw_rows(sd, rows, contexts, word, shares, noise, run)
    plain, again = draw(sd, alone, first, run), rounding.redrawn(sd, alone, first, run)
    held = rounding.hold(latents[0, :2], plain[:2], [*plain, *again])  # one picture in all
    images = np.stack([decode(sd, some) for some in latents], 1)  # (rows, pictures, H, W, 3)
    heats = np.stack([p2p.mask_of(seen, word, images.shape[2:4]) for seen in shots])
    masks = mask_between(to_uint8(images[0]), source, other, heats)
    moved = p2p.change(images, masks)
    table = [
        {"row": row.name.replace("\n", " ")}
        | {part: mean_of(far[i], "%") for part, far in moved.items()}
        | as_asked(to_uint8(images[i]), row.prompt)
        for i, row in enumerate(rows)
    ]
    names = [row.name for row in rows]
    at, edited = names.index(p2p.PLAIN), names.index(p2p.EDITED)
    less = mean_of(moved["outside"][at] - moved["outside"][edited], "%")
    finding = find(p2p.replaced_words(sd.tokenizer, source, other), table[at], table[edited], less)
    return Report(
        finding,
        Control("the source's own attention, injected", str(held), held.passed, WRONG),
        table=table,
        figure=figures.edit_sheet(images, masks, names, table, finding),
        tensors={"latents": latents, "pictures": to_uint8(images), "masks": masks.astype(np.uint8)},
    )


def find(words: Sequence[str], plain: dict, edited: dict, less: Estimate) -> str:
    """Whether less changes outside with the edit, noise by noise."""
    gain = "less than" if less.clears(0) else "not surely less than"
    what = f"“{words[1]}” for “{words[0]}” by replace changes the rest of the picture by"
    return f"{what} {edited['outside']}, {gain} without it, {plain['outside'].short}."


if __name__ == "__main__":
    script.run_experiment(main, Options)
