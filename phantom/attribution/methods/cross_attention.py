"""Raw cross-attention: what the places of the finest layers give to a word's tokens."""

import numpy as np

from phantom.attribution.case import Case
from xray.attention import CROSS

from .grids import averaged, named, of_words


def cross_attention(case: Case) -> dict[str, np.ndarray]:
    """The mean over layers, heads and timesteps, held against nothing."""
    layers = case.look(CROSS).values()  # (n, heads, positions, 77)
    finest = max(layer.shape[2] for layer in layers)
    means = [layer.mean((0, 1)) for layer in layers if layer.shape[2] == finest]
    return named(case.words, averaged(of_words(mean, case.words) for mean in means))
