"""Where does the model attend to a word, and does it matter?

While a picture is drawn, every latent position attends to the tokens of the prompt. How much of its
attention each gets, in all layers and heads and at all steps, is pooled into one heat map per word
(after DAAM, Tang et al., arXiv 2210.04885; the pooling is the project's own). Bright is where the
word was attended to most, on each map's own range; the white line is a fixed share of that range.

A map says where the model attends, not that it matters. So the same noises are drawn once more for
each word, and for the start, end and padding tokens, with the attention to it set to zero: the bars
tell how far pictures move then (RMS, per cent of full scale, 95 % intervals over the noises).
Attention is not explanation (arXiv 1902.10186): the phantom's words carry the prompt, but with
--weights phantom-registers it is the padding, and words that light up are removed at no cost.

Of things that the phantom draws, the maps are scored by their IoU with exact masks, beside the map
of the start token, which is the same for every word and knows none. With a PICTURE the model looks
at that, noised to several timesteps, and the maps alone are shown. The control: what is computed is
the same when nobody looks, but for rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import stable_diffusion_tf
from experiments.figures import cross_attention as figures
from phantom.attribution.examples import masks_in
from phantom.attribution.rating import BLIND, OWN, iou_of_things
from phantom.prompts import not_read
from phantom.world import BACKGROUNDS, SIDE
from stable_diffusion_tf.errors import UsageError
from xray import attention, script
from xray.measure import Estimate, between_extremes, mean_of
from xray.methods import token_ablation
from xray.options import EXAMPLE, Batch, Picture, Prompt
from xray.pictures import read_image
from xray.report import Control, Report

WRONG = "looking changed what the model computes"


@dataclass(frozen=True)
class Options(Batch):
    renamed: ClassVar = {"--image": "PICTURE"}

    prompt: Prompt = EXAMPLE
    """what to draw, or what is to be seen in the picture."""
    picture: Picture = None
    """to look at, cropped to its middle square; without one, the model draws its own."""
    steps: int = 12


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    words, ids = sd.tokenizer.words(options.prompt), sd.tokenize(options.prompt)[0]
    if not words:
        raise UsageError("the prompt has no word to attend to; try 'a cat'")
    if options.picture:
        image = read_image(options.picture, sd.size)[None]
        shots, held = token_ablation.look(sd, image, options.prompt, options.seed)
        images, moved = image, {}
    else:
        groups = token_ablation.groups_of(ids, words)
        images, shots, far, held = token_ablation.draw_all(sd, groups, options)
        moved = {word: mean_of(one, "%") for word, one in far.items()}
    known = [masks_in(image) if image.shape[:2] == (SIDE, SIDE) else {} for image in images]
    how = attention.pooling_for(sd), images.shape[1:3]
    found = [
        attention.word_maps(seen, attention.phrases(words, [*masks]), *how)
        for seen, masks in zip(shots, known, strict=True)
    ]
    scores = {name: mean_of(*some) for name, some in iou_of_things(found, known).items()}
    table = [
        {"word": word, "inside of the line, %": 100 * np.mean(heat >= attention.INSIDE)}
        | ({"removed, pictures move": moved[word]} if word in moved else {})
        for word, heat in zip(found[0], map(between_extremes, found[0].values()), strict=True)
    ]
    finding = find(scores, moved, {word for masks in known for word in masks} - {*BACKGROUNDS})
    heading = f"“{options.prompt}”\n{finding}"
    return Report(
        finding,
        Control("with probes and without", str(held), held.passed, WRONG),
        numbers=scores | {f"{word} removed": far for word, far in moved.items()},
        table=table,
        figure=figures.attention_sheet(images[0], found[0], moved, heading),
        tensors={w: heat.astype(np.float32) for w, heat in found[0].items()} | {"pictures": images},
        notes=not_read(sd, options.prompt),
    )


def find(scores: Mapping[str, Estimate], moved: Mapping[str, Estimate], things: set[str]) -> str:
    """How well maps find things, and what removing the attention to them does."""
    told = {word: far for word, far in moved.items() if word in things}
    met = f"Words' heat maps meet their things with IoU {scores.get(OWN)}; "
    if told and scores:
        far = f"{max(far.value for far in told.values()):.1f} %"
        padding = f"padding's {moved['<padding>'].value:.1f} %"
        return f"{met}removing that attention moves pictures {far}, {padding}."
    if scores:
        return f"{met}the start token's, which knows no word, with {scores[BLIND].short}."
    if moved:
        most = max(moved, key=lambda word: moved[word].value)
        return f"Of all words removing the attention to {most} moves pictures most: {moved[most]}."
    return "The maps tell where each word is attended to; no mask is known to score them by."


if __name__ == "__main__":
    script.run_experiment(main, Options)
