"""In which layer of the text encoder does the thing appear?

Each layer of the text encoder adds something to what comes in: its self-attention, and its MLP.
Here only the first layers act and the rest is ablated (it adds nothing), so that an early state
goes through the final norm and the UNet draws from it: a logit lens, which Diffusion Lens (arXiv
2403.05846) brought to text encoders. A state that the UNet never saw may fail for being strange:
so in other rows all acts but the self-attention of one layer, after which the others go on.

Read the sheet row by row: what acts, a picture of each of four prompts, how many pictures of all
prompts show the things, the background and the side that are asked for (only the phantom's can be
told), and the cosine of the context, its 77 vectors as one, with that of the whole encoder.
Intervals are over pictures, two noises for each prompt, those of the cosine over prompts.

Diffusion Lens found that things appear late in SD 2.1 and DeepFloyd, first as a bag of words. Their
encoders have over twenty layers; the phantom's has three, and 122 tokens, and need not share the
work that way. The control: where nothing is ablated, the same means must give the plain context but
for rounding.
"""

from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import text_layers as figures
from phantom.prompts import counts_of_each, examples, known_things, not_read
from xray import rounding, script
from xray.measure import mean_of
from xray.methods.drawing import draw, to_pictures
from xray.methods.text_layers import (
    ablations,
    encode_ablated,
    first_layers,
    likeness,
)
from xray.options import Batch, Prompts
from xray.report import Control, Report, numbers_of

EXAMPLES = 32  # prompts, half of them with two things
WRONG = "what ablates a layer changes the others too"


@dataclass(frozen=True)
class Options(Batch):
    prompts: Prompts = ()
    """what to draw; by default 32 prompts of the phantom's world, drawn by the seed."""
    pictures: int = 2
    steps: int = 8
    layers: tuple[int, ...] = ()
    """to stop after and to look into, counted from 1; by default all, and always the last."""


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    prompts = options.prompts or examples(options.seed, EXAMPLES, known_things(sd))
    texts, acting = [*prompts, ""], ablations(sd.text_config.num_hidden_layers, options.layers)
    contexts = encode_ablated(sd, texts, np.stack([*acting.values()]))
    same = sd.encode_text(texts * len(acting)).reshape(contexts.shape)  # in the same rows
    whole = [*acting].index(first_layers(sd.text_config.num_hidden_layers))
    held = rounding.hold(contexts[whole], same[whole], same)
    run = {"uncond": same[whole, -1:], "steps": options.steps, "guidance": options.guidance}
    noise = sd.draw_noise(options.seed, options.pictures * len(prompts))
    repeated = np.tile(contexts[:, :-1], (1, options.pictures, 1, 1))
    latents = np.stack([draw(sd, some, noise, run) for some in repeated])
    images = to_pictures(sd, latents)  # (ablations, pictures · prompts, H, W, 3)
    near = likeness(contexts[:, :-1], same[whole, :-1])
    table = [
        {"what acts": name}
        | counts_of_each(some, [*prompts] * options.pictures)
        | {"cosine": mean_of(cosines)}
        for name, some, cosines in zip(acting, images, near, strict=True)
    ]
    layer, finding = figures.tell_layer({row["what acts"]: row for row in table})
    return Report(
        finding,
        Control("nothing ablated, by the same means: the context", str(held), held.passed, WRONG),
        numbers=numbers_of(table) | {"things appear with": layer},
        table=table,
        figure=figures.sheet(images, [*prompts] * options.pictures, table, finding),
        tensors={"contexts": contexts, "pictures": images},
        notes=[line for text in options.prompts for line in not_read(sd, text)],
    )


if __name__ == "__main__":
    script.run_experiment(main, Options)
