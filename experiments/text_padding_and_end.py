"""Do the end and padding tokens carry the prompt?

CLIP reads 77 tokens whatever the prompt: a start, the words, an end, and padding up to the last.
Each attends to those before it, so the end and the padding may know the whole prompt, and the UNet
attends to all 77. Here spans of the tokens' vectors of a prompt A are replaced by those of B, and
pictures are drawn from the same noises (activation patching at the text encoder's output).

Read the sheet row by row: what was replaced, pictures, how many show A's and B's object and
background (only the phantom's can be told), and how far latents moved from A's (0 %) to B's
(100 %): d(A) / (d(A) + d(B)). Intervals are over noises; all is about one pair of prompts.

In SD 1.x, whose CLIP was trained alone, the end outweighs the words (arXiv 2405.15330); whether
padding is used depends on the training of the text encoder (arXiv 2501.06751). The phantom was
trained with the padding of other captions, so it says nothing; in phantom-registers it says all.
The control: the start token attends only to itself, so replacing it must change no bit, and
replacing everything must give B's pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import padding_and_end as figures
from phantom.prompts import counts
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import script
from xray.measure import Estimate, distance, mean_of
from xray.methods import token_spans
from xray.methods.drawing import decode, draw
from xray.options import Batch, Other, Prompt
from xray.report import Control, Report

REPLACED = {  # what the sheet calls it → the spans that come from B
    "nothing": (),
    "start": ("start",),
    "words": ("words",),
    "end": ("end",),
    "half of the padding": ("early padding",),
    "padding": ("early padding", "late padding"),
    "end and padding": ("end", "early padding", "late padding"),
    "everything": token_spans.SPANS,
}
WRONG = "the start token carries something, or a span is wrong"
CARRIERS = {"words": "The words carry", "end": "The end carries", "padding": "Padding carries"}


@dataclass(frozen=True)
class Options(Batch):
    prompt: Prompt = "a rabbit on a purple background"
    """A, whose tokens are replaced."""
    other: Other = "a burger on a green background"
    """B, where they are taken from."""
    pictures: int = 32
    steps: int = 10


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    prompts = options.prompt, options.other
    texts = [sd.encode_text(text) for text in (*prompts, "")]  # one by one: rows may round apart
    a, b = map(token_spans.split, np.concatenate(texts[:2]), sd.tokenize(prompts))
    contexts = {name: token_spans.replace(a, b, spans)[None] for name, spans in REPLACED.items()}
    if np.array_equal(contexts["nothing"], contexts["everything"]):
        raise UsageError("both prompts are the same to the model; try 'a cat' and 'a dog'")
    run = {"uncond": texts[2], "steps": options.steps, "guidance": options.guidance}
    noise = sd.draw_noise(options.seed, options.pictures)
    latents = {
        name: draw(sd, np.repeat(context, len(noise), 0), noise, run)
        for name, context in (contexts | {"B": texts[1]}).items()
    }
    images = {name: to_uint8(decode(sd, latents[name])) for name in REPLACED}
    table = [
        {"replaced": name, "moved to B": move(latents, name)}
        | {f"A's {mark}": count for mark, count in counts(images[name], prompts[0]).items()}
        | {f"B's {mark}": count for mark, count in counts(images[name], prompts[1]).items()}
        for name in REPLACED
    ]
    pairs = ("start", "nothing"), ("everything", "B")
    same = all(np.array_equal(latents[one], latents[other]) for one, other in pairs)
    finding = find({row["replaced"]: row for row in table})
    saved = {"contexts": contexts, "latents": latents, "pictures": images}
    return Report(
        finding,
        Control("the start replaced gives A's bits, everything replaced B's", same, same, WRONG),
        table=table,
        figure=figures.sheet(images, table, f"A: “{prompts[0]}”, B: “{prompts[1]}”\n{finding}"),
        tensors={name: np.stack([*some.values()]) for name, some in saved.items()},
    )


def move(latents: Mapping[str, np.ndarray], name: str) -> Estimate:
    far, left = (distance(latents[name], latents[end]) for end in ("nothing", "B"))
    return mean_of(100 * far / (far + left), "%")


def find(rows: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Which of words, end and padding gives most of B, if one clearly does."""
    marks = [column for column in rows["words"] if column.startswith("B's")]
    got = {n: min(rows[n][column] for column in marks or ["moved to B"]) for n in CARRIERS}
    first, second = sorted(got, key=lambda name: -got[name].value)[:2]
    won = got[first].of("pictures into B's") if marks else f"latents {got[first]} of the way to B's"
    if got[first].low <= got[second].high:
        return f"No span alone carries most of the prompt: replacing the {first} turns {won}."
    return f"{CARRIERS[first]} the prompt: replacing it alone turns {won}."


if __name__ == "__main__":
    script.run_experiment(main, Options)
