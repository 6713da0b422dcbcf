"""Which pooling of cross-attention finds things best? `python -m phantom.attribution.search`.

DAAM's pooling, with the best of what must be chosen together and then field by field, twice, on
held-out scenes of two things. It is how `xray.attention.DEFAULT` was chosen, which is next to the
best and fits every model; `python -m phantom.attribution` scores it, on other scenes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from phantom.world import SIDE
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.progress import progress_bar
from xray import script
from xray.attention import CROSS, DAAM, Pooling, Words, phrases, word_maps
from xray.attention.pooling import (
    AGAINST,
    JOINS,
    NORMS,
    OUTER,
    RESIZES,
    STEPS,
    WEIGHTS,
)
from xray.probe.interventions import Reads
from xray.report import write_json

from .benchmark import load
from .examples import Example, looked_at, told
from .rating import best_iou

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

TOGETHER = [*product(AGAINST, NORMS, WEIGHTS)]  # each changes what the others are worth
UP, DOWN = "unet.up_blocks.*.attn2.probs", "unet.down_blocks.*.attn2.probs"
FROM_MIDDLE = "unet.[mu]*.attn2.probs"  # not of every model: some have no words in the middle
CHOICES = {  # field of the pooling → what the search tries, one field after the other
    "layers": (OUTER, CROSS, UP, DOWN, FROM_MIDDLE),
    "steps": tuple(STEPS),
    "join": tuple(JOINS),
    "resize": tuple(RESIZES),
}
SHOWN = 10


class Sight(NamedTuple):
    """What was read of one scene, with its heads averaged, and the masks of its things."""

    shots: list[Reads]
    words: Words
    masks: dict[str, np.ndarray]


def main(
    weights: str = "phantom", scenes: int = 60, seed: int = 1, out: Path = Path("outputs")
) -> None:
    """Search for the pooling whose maps meet exact masks best.

    Args:
        weights: a phantom's name or folder.
        scenes: how many to look at.
        seed: draws scenes and noise; the benchmark chooses on seed 1 too, and scores on 0.
        out: the folder to save into.
    """
    if scenes < 1:
        raise UsageError("--scenes is 1 or more")
    sd = load(weights)
    folder = script.make_folder(out, "attribution_search", sd.checkpoint.place.name)
    _, tried = search(sights(sd, scenes, seed))
    ranked = sorted(tried.items(), key=lambda pair: -pair[1])
    report = [{"iou": round(score, 4), **asdict(pooling)} for pooling, score in ranked]
    write_json(report, folder / "report.json")
    for pooling, score in [*ranked[:SHOWN], (DAAM, tried[DAAM])]:
        print(f"{score:.3f}  {not_daam(pooling)}")
    print(f"report {folder / 'report.json'}")


def sights(sd: "StableDiffusion", scenes: int, seed: int) -> list[Sight]:
    some = looked_at(sd, told(sd, scenes, seed), seed, steps=1)
    bar = progress_bar(range(scenes), "looking", "scene")
    return [sight(one) for one, _ in zip(some, bar, strict=True)]


def sight(one: Example) -> Sight:
    read, case = one.case.look(CROSS), one.case
    shots = []
    for i in range(len(case.times)):
        shot = Reads()
        shot.update({at: layer[i : i + 1].mean(1) for at, layer in read.items()})
        shot.dims.update(dict.fromkeys(shot, ("half", "query", "token")))
        shots.append(shot)
    case.seen.clear()
    words = phrases(case.sd.tokenizer.words(case.prompt), one.things)
    return Sight(shots, words, {word: one.masks[word] for word in one.things})


def search(some: Sequence[Sight]) -> tuple[Pooling, dict[Pooling, float]]:
    """The best pooling, and all that were tried with their scores."""
    tried: dict[Pooling, float] = {}

    def score(pooling: Pooling) -> float:
        if pooling not in tried:
            tried[pooling] = on_things(some, pooling)
        return tried[pooling]

    best = DAAM
    score(best)
    for _ in range(2):
        several = [replace(best, against=a, norm=n, weight=w) for a, n, w in TOGETHER]
        best = max(several, key=score)
        for field, values in CHOICES.items():
            best = max((replace(best, **{field: value}) for value in values), key=score)
    return best, tried


def on_things(some: Sequence[Sight], pooling: Pooling) -> float:
    """Mean IoU over the things, at the one share that suits them best."""
    heats, known = [], []
    whole = replace(pooling, half="whole")
    for one in some:
        maps: Mapping[str, np.ndarray] = word_maps(one.shots, one.words, whole, (SIDE, SIDE))
        heats += [maps[word] for word in one.masks]
        known += one.masks.values()
    heats, known = np.array(heats), np.array(known)
    return best_iou(heats, known)[0]


def not_daam(pooling: Pooling) -> str:
    """Where a pooling is not DAAM's."""
    other = [f for f in asdict(DAAM) if getattr(pooling, f) != getattr(DAAM, f)]
    return ", ".join(f"{f}={getattr(pooling, f)!r}" for f in other) or "DAAM's own"


if __name__ == "__main__":
    script.run(main)
