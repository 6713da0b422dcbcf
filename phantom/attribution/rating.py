"""How good maps are: five scores, each with its interval over pictures."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from phantom.world import BACKGROUNDS, SIDE
from xray import measure
from xray.attention import INSIDE
from xray.measure import Estimate

SHARES = np.arange(0.05, 1, 0.05)  # of a map's range, from which on it counts as inside
CELLS = 16  # of the latent, on which ranks are compared: pixels of one cell are no cases apart


class Word(NamedTuple):
    """A word of a picture: its mask, (64, 64) bool, that of the other thing, None where there is
    none, what the picture loses where the word is exchanged, (16, 16), None where nobody knows, and
    its map by each method, (64, 64)."""

    picture: int
    is_thing: bool
    mask: np.ndarray
    other: np.ndarray | None
    loss: np.ndarray | None
    maps: Mapping[str, np.ndarray]


class Row(NamedTuple):
    """How true the maps of a method are. share: of a map's range from which on it counts as inside,
    chosen on other scenes; iou: with the mask; mass: the part of the map that lies in the mask;
    pointing: its largest value does; leakage: of the map on the two things, the part on the wrong
    one, by their areas; causal: rank correlation with what is lost where the word is exchanged."""

    method: str
    words: int
    share: float
    iou: Estimate
    mass: Estimate
    pointing: Estimate
    leakage: Estimate | None
    causal: Estimate | None


SCORES = ("iou", "mass", "pointing", "leakage", "causal")


def best_share(words: list[Word], method: str) -> float:
    """The share at which the mean IoU is best."""
    return best_iou(*stacked(words, method))[1]


def best_iou(
    maps: np.ndarray, masks: np.ndarray, shares: np.ndarray = SHARES
) -> tuple[float, float]:
    """The best mean IoU of maps with masks, (n, 64, 64) each, at one share for all; the share."""
    means = [float(measure.iou_at(maps, masks, share).mean()) for share in shares]
    best = int(np.argmax(means))
    return means[best], float(shares[best])


def rate(words: list[Word], method: str, share: float) -> Row:
    maps, masks = stacked(words, method)
    pictures = np.array([word.picture for word in words])
    beside = [i for i, word in enumerate(words) if word.other is not None]
    lost = [i for i, word in enumerate(words) if word.loss is not None]

    def mean(values: np.ndarray, rows: list[int] | slice = slice(None)) -> Estimate:
        return measure.mean_of(values, cases=pictures[rows])

    leaked = [measure.leakage(maps[i], masks[i], words[i].other) for i in beside]
    coarse = measure.resize_by_area(maps, CELLS, CELLS)
    ranked = [measure.rank_correlation(coarse[i], words[i].loss) for i in lost]
    return Row(
        method,
        len(words),
        share,
        mean(measure.iou_at(maps, masks, share)),
        mean(measure.mass_inside(maps, masks)),
        mean(measure.pointing(maps, masks)),
        mean(np.array(leaked), beside) if beside else None,
        mean(np.array(ranked), lost) if lost else None,
    )


def stacked(words: list[Word], method: str) -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks, (n, 64, 64) each."""
    maps = np.empty((len(words), SIDE, SIDE))
    for row, word in zip(maps, words, strict=True):
        row[:] = word.maps[method]
    return maps, np.array([word.mask for word in words])


# --- of maps that somebody has already ---------------------------------------------------------

OWN, BLIND = "IoU, own map", "IoU, start token's map"


def iou_of_things(
    found: Sequence[Mapping[str, np.ndarray]], known: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, tuple[np.ndarray, str, np.ndarray]]:
    """The IoU of things' masks with their own maps, and with where the start token gets least,
    which is the same for every word: (things,), no unit, and which picture each is of, as `mean_of`
    takes them; {} where no word has a mask. found, known: of each picture, word → map, mask."""
    rows = [
        (
            measure.iou_at(maps[word], mask, INSIDE),
            measure.iou_at(-maps["<start>"], mask, INSIDE),
            i,
        )
        for i, (maps, masks) in enumerate(zip(found, known, strict=True))
        for word, mask in masks.items()
        if word in maps and word not in BACKGROUNDS
    ]
    if not rows:
        return {}
    own, blind, pictures = (np.array(column) for column in zip(*rows, strict=True))
    return {OWN: (own, "", pictures), BLIND: (blind, "", pictures)}
