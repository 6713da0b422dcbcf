"""A learned selection of heads: those whose maps of things meet the masks best on other scenes."""

from collections.abc import Iterator, Sequence

import numpy as np

from phantom.attribution.case import Case
from phantom.world import SIDE
from xray import measure
from xray.attention import CROSS

from .examples import Example
from .methods import Method
from .methods.grids import enlarged, of_words
from .rating import best_iou

COUNTS = (1, 2, 4, 8)  # of heads, of which the best number is taken
SHARES = np.arange(0.1, 1, 0.1)

Head = tuple[str, int]  # address, index


def chosen_heads(known: Sequence[Example]) -> Method:
    """The mean of the best heads' maps; which, and how many, is learned from examples."""
    maps: dict[Head, list[np.ndarray]] = {}
    masks = []
    for one in known:
        for head, found in of_heads(one.case):
            maps.setdefault(head, []).extend(found[word] for word in one.things)
        masks += [one.masks[word] for word in one.things]
        one.case.seen.clear()
    known_masks = np.array(masks)

    def score(found: np.ndarray) -> float:
        return best_iou(found, known_masks, SHARES)[0]

    ranked = sorted(maps, key=lambda head: -score(np.array(maps[head])))
    means = {n: np.mean([maps[head] for head in ranked[:n]], axis=0) for n in COUNTS}
    count = max(COUNTS, key=lambda n: score(means[n]))
    best = set(ranked[:count])

    def method(case: Case) -> dict[str, np.ndarray]:
        some = [found for head, found in of_heads(case) if head in best]
        return {word: np.mean([found[word] for found in some], axis=0) for word in case.words}

    return method


def of_heads(case: Case) -> Iterator[tuple[Head, dict[str, np.ndarray]]]:
    """The map of each word by each head alone, stretched from 0 to 1, (64, 64)."""
    for at, layer in case.look(CROSS).items():
        side = round(layer.shape[2] ** 0.5)
        for head in range(layer.shape[1]):
            words = of_words(layer[:, head].mean(0), case.words)
            maps = enlarged(words.reshape(-1, side, side), SIDE)
            yield (at, head), dict(zip(case.words, measure.between_extremes(maps), strict=True))
