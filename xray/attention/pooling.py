"""The choices between attention and a heat map, each a name in a table.

They are DAAM's (Tang et al., arXiv 2210.04885, section 2.2) and others, in the order in which they
are made:

    half     which half of classifier-free guidance is looked at
    heads    whose mean is taken
    steps    how much each step counts
    layers   which cross-attentions, a glob or several
    join     what a word of several tokens gets of their maps
    resize   how each layer's map, on a grid of its own, is brought to the common one
    norm     whether each layer's map is divided by its sum or its largest value
    weight   how much each layer counts
    against  what the map of a word is held against

`DEFAULT` was chosen on the phantom, whose masks are exact: python -m phantom.attribution.search.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from stable_diffusion_tf.errors import UsageError
from xray.measure import between_extremes, overlaps

CROSS = "unet.*.attn2.probs"
OUTER = ("unet.down_blocks.*.attn2.probs", "unet.up_blocks.*.attn2.probs")  # not the coarsest


def half_of(rows: int) -> int:
    if rows % 2:
        raise UsageError(f"{rows} pictures are no two halves of guidance: pool with half='whole'")
    return rows // 2


def nearest(into: int, old: int) -> np.ndarray:
    """The old position that each new position's centre lies in, as PyTorch's nearest-exact."""
    return np.eye(old)[((np.arange(into) + 0.5) * old / into).astype(int)]


def bilinear(into: int, old: int) -> np.ndarray:
    return interpolation(into, old, 1, lambda d: np.maximum(1 - d, 0))


def bicubic(into: int, old: int) -> np.ndarray:
    return interpolation(into, old, 2, cubic)


def cubic(d: np.ndarray) -> np.ndarray:
    """The cubic kernel of Keys, IEEE TASSP 29 (1981), with a = −3/4 as in PyTorch and OpenCV."""
    a = -0.75
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def interpolation(
    into: int, old: int, reach: int, kernel: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The share of each old position in each new one, (into, old). Beyond the border the last
    goes on; a coarser grid samples the finer one and does not average it, as `area` does."""
    centre = ((np.arange(into) + 0.5) * old / into - 0.5)[:, None]
    near = np.floor(centre).astype(int) + np.arange(1 - reach, 1 + reach)
    table = np.zeros((into, old))
    row = np.arange(into)[:, None]
    np.add.at(table, (row, np.clip(near, 0, old - 1)), kernel(np.abs(centre - near)))
    return table


def divided(maps: np.ndarray, by: np.ndarray) -> np.ndarray:
    """maps / by, and 0 where there is nothing to divide by."""
    return np.divide(maps, by, out=np.zeros(maps.shape), where=by > 0)


def share(words: np.ndarray) -> np.ndarray:
    return divided(words, words.sum(0, keepdims=True))


HALVES = {  # name → rows of the batch → those that are looked at
    "cond": lambda rows: slice(half_of(rows), None),
    "uncond": lambda rows: slice(half_of(rows)),
    "whole": lambda _: slice(None),  # of a model that knows no halves
}
STEPS = {  # name → number of steps → the weight of each; noise comes first
    "equal": np.ones,
    "late": lambda n: np.arange(1.0, n + 1),
    "early": lambda n: np.arange(float(n), 0, -1),
}
JOINS = {  # name → (rows, columns, tokens) → (rows, columns)
    "mean": lambda maps: maps.mean(-1),
    "max": lambda maps: maps.max(-1),
    "last": lambda maps: maps[..., -1],
}
RESIZES = {"nearest": nearest, "bilinear": bilinear, "bicubic": bicubic, "area": overlaps}
NORMS = {
    "none": lambda maps: maps,
    "sum": lambda maps: divided(maps, maps.sum((-2, -1), keepdims=True)),
    "max": lambda maps: divided(maps, maps.max((-2, -1), keepdims=True)),
}
WEIGHTS = {"equal": lambda _: 1, "positions": lambda count: count}
AGAINST = {  # name → the maps of all words (n, rows, columns), that of the start token → (n, …)
    "nothing": lambda words, _: words,
    "words": lambda words, _: share(words),
    "mean": lambda words, _: words - words.mean(0),
    "start": lambda words, start: words - start,
    "odds": lambda words, start: divided(words, words + start),
    "words, start": lambda words, start: share(words) * (1 - between_extremes(start)),
}
TABLES = {
    "half": HALVES,
    "steps": STEPS,
    "join": JOINS,
    "resize": RESIZES,
    "norm": NORMS,
    "weight": WEIGHTS,
    "against": AGAINST,
}


@dataclass(frozen=True)
class Pooling:
    """How a word's attention becomes one map. The choices are named in the tables above.

    half: 'cond', 'uncond', or 'whole' where the model makes one prediction (LCM).
    layers: globs. heads: their indices; None: all. steps: 'equal', 'late' and 'early' (rising and
        falling with the step), or a weight for each step.
    join: 'mean', 'max', 'last'. resize: 'nearest', 'bilinear', 'bicubic', 'area'; what a kernel
        takes below zero is zero. norm: 'none', 'sum', 'max'. weight: 'equal', 'positions'.
    against: 'nothing'; 'words', a word's share among all words of the prompt; 'mean', less their
        mean; 'start', less the map of the start token; 'odds', its part of what it and the start
        token get; 'words, start', the share among the words, times 1 where the start token gets
        least and 0 where it gets most.
    """

    half: str = "cond"
    layers: str | Sequence[str] = OUTER
    heads: Sequence[int] | None = None
    steps: str | Sequence[float] = "equal"
    join: str = "mean"
    resize: str = "bicubic"
    norm: str = "none"
    weight: str = "equal"
    against: str = "nothing"

    def __post_init__(self):
        for field in fields(self):
            name, table = getattr(self, field.name), TABLES.get(field.name)
            if table and isinstance(name, str) and name not in table:
                raise UsageError(f"no {field.name} {name!r}; choose {', '.join(map(repr, table))}")


DAAM = Pooling()
# The start token takes what attention no word wants, so what a word gets is held against that. On
# 60 scenes of the phantom its IoU is 0.557; the best of some ninety poolings leaves out the layers
# before the middle and has 0.562, but not every model reads words in its middle. On 100 other
# scenes maps of the words for things meet the exact masks with 0.53 IoU (DAAM's: 0.36) and point
# into them in 86 % (59 %); in pictures that the phantom draws, 0.53 (0.36) and 89 % (62 %).
DEFAULT = Pooling(layers=CROSS, against="start")
INSIDE = 0.7  # of a map's range: from there on, its positions meet the masks best
