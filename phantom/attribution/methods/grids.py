"""What methods share: from values at positions to maps on a grid."""

from collections.abc import Iterable, Mapping

import numpy as np

from xray.attention.pooling import bilinear


def of_words(layer: np.ndarray, words: Mapping[str, list[int]]) -> np.ndarray:
    """What each word's tokens have at each position, their mean: (positions, 77) →
    (words, positions)."""
    return np.stack([layer[:, places].mean(1) for places in words.values()])


def averaged(layers: Iterable[np.ndarray]) -> np.ndarray:
    """The mean of maps (words, positions) of square layers, the coarse ones enlarged to the finest:
    (words, rows, columns)."""
    maps = [layer.reshape(len(layer), *2 * (round(layer.shape[1] ** 0.5),)) for layer in layers]
    side = max(one.shape[-1] for one in maps)
    return np.mean([enlarged(one, side) for one in maps], axis=0)


def enlarged(maps: np.ndarray, side: int) -> np.ndarray:
    """(…, rows, columns) → (…, side, side), bilinear."""
    down, across = (bilinear(side, cells) for cells in maps.shape[-2:])
    return down @ maps @ across.T


def named(words: Mapping[str, list[int]], maps: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(words, maps, strict=True))
