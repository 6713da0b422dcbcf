"""Which prompt does a picture follow, that of its words or that of its padding? `python -m
phantom.patching`.

Every prompt is drawn as it is, and again with the end and padding vectors of the next prompt of its
kind, which shares no thing with it, in place of its own. The judge knows all core things. The
control: what a picture shares with a third prompt, which neither words nor padding name.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import tyro

from phantom.evaluate import rate_pictures, table
from phantom.judge import Findings, judge
from phantom.train.contexts import Contexts, ends_of, with_padding_of
from phantom.world import CORE, THINGS, Scene, for_evaluation, scenes, wording
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import script

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

VOCABULARY = {"core": CORE, "learned": THINGS}
NEIGHBOURS = 2  # a prompt shares no thing with so many that follow it


def main(
    weights: Path = Path("weights/phantom-next"),
    prompts: int = 60,
    steps: int = 25,
    guidance: float = 4.0,
    seed: int = 0,
    batch: int = 10,
    things: Literal["core", "learned"] = "core",
    out: Path | None = None,
) -> None:
    """Draw prompts as they are and with the padding of others, and count what is shown.

    Args:
        weights: a diffusers folder.
        prompts: how many, half of them with one thing and half with two.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated; 1 is not at all.
        seed: draws the scenes and the noise.
        batch: pictures drawn at once.
        things: the prompts' things: core (74) or learned (40).
        out: a file to which the figures are added as a line of JSON.
    """
    sd = script.load_model(str(weights))
    vocabulary = VOCABULARY[things]
    drawn = (scenes(seed, 3 * prompts, for_evaluation, count, vocabulary) for count in (1, 2))
    told = [scene for some in drawn for scene in unlike(some, prompts // 2)]
    ids = sd.tokenize([wording(scene) for scene in told])
    own = Contexts(sd.encode_text([wording(scene) for scene in told]), ends_of(ids, ids[0, -1]))
    other = neighbours(prompts)

    def draw(context: np.ndarray) -> list[Findings]:
        made = pictures(sd, context, steps, guidance, seed, batch)
        return [judge(picture, 2, CORE) for picture in made]

    as_is, patched = draw(own.vectors), draw(with_padding_of(own, own[other]))
    pairs = range(prompts // 2, prompts)
    figures = {
        "weights": weights.name,
        "prompts": prompts,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "things": things,
        "as is": {row.what: round(row.reached, 1) for row in rate_pictures(told, as_is)},
        "two-thing prompts, things found": {
            "of": 2 * len(pairs),
            "as is": found(told, as_is, pairs, range(prompts)),
            "patched: of the words": found(told, patched, pairs, range(prompts)),
            "patched: of the padding": found(told, patched, pairs, other),
            "patched: of a third prompt": found(told, patched, pairs, other[other]),
        },
    }
    print("\n".join(table(rate_pictures(told, as_is))))
    print(json.dumps(figures["two-thing prompts, things found"]))
    if out:
        with open(out, "a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")


def unlike(some: Sequence[Scene], number: int) -> list[Scene]:
    """The first scenes of which none shares a thing with the NEIGHBOURS before it, the last ones
    being before the first."""
    kept: list[Scene] = []
    for scene in some:
        around = kept[-NEIGHBOURS:] + (
            kept[:NEIGHBOURS] if len(kept) >= number - NEIGHBOURS else []
        )
        if not names_of(scene) & {name for other in around for name in names_of(other)}:
            kept.append(scene)
        if len(kept) == number:
            return kept
    raise UsageError(f"too few scenes for {number} unlike ones; try fewer --prompts")


def names_of(scene: Scene) -> set[str]:
    return {thing.name for thing in scene.things}


def neighbours(prompts: int) -> np.ndarray:
    """For each prompt the next one of its kind, after the last the first: (prompts,)."""
    half = prompts // 2
    return np.concatenate([np.roll(np.arange(half), -1), half + np.roll(np.arange(half), -1)])


def found(
    told: Sequence[Scene], seen: Sequence[Findings], rows: Sequence[int], asked: Sequence[int]
) -> int:
    """How many of the things that prompt asked[i] names are seen in picture i, over rows i."""
    return sum(
        len(names_of(told[asked[i]]) & {match.thing.name for match in seen[i].matches})
        for i in rows
    )


def pictures(
    sd: "StableDiffusion", context: np.ndarray, steps: int, guidance: float, seed: int, batch: int
) -> np.ndarray:
    """A picture for each context, uint8; batch number i is drawn from seed + i."""
    empty, made = sd.encode_text([""]), []
    for i in range(0, len(context), batch):
        some = context[i : i + batch]
        latent = sd.draw_noise(seed + i // batch, len(some), None, None)
        for step in sd.denoise(some, empty, steps, guidance, latent=latent):
            latent = step.x_prev
        made.append(to_uint8(sd.decode_latent(latent)))
    return np.concatenate(made)


if __name__ == "__main__":
    tyro.cli(main)
