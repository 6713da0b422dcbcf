"""DAAM: cross-attention of all layers, heads and timesteps, resized and added up."""

from dataclasses import replace

import numpy as np

from phantom.attribution.case import Case
from xray.attention import CROSS, DAAM, Pooling, phrases, word_maps

GRID = (64, 64)


def daam(case: Case) -> dict[str, np.ndarray]:
    """Tang et al., arXiv 2210.04885, section 2.2."""
    found = pooled(case, DAAM)
    return {word: found[word] for word in case.words}


def pooled(case: Case, pooling: Pooling) -> dict[str, np.ndarray]:
    """The maps of every word of the prompt, and of '<start>', '<end>' and '<padding>'."""
    read = case.look(CROSS)
    shots = [{at: layer[i : i + 1] for at, layer in read.items()} for i in range(len(case.times))]
    words = phrases(case.sd.tokenizer.words(case.prompt), [*case.words])
    return word_maps(shots, words, replace(pooling, half="whole"), GRID, case.latents.shape[1:3])
