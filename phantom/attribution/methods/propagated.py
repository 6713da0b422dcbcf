"""Cross-attention, carried on by self-attention to the places that attend alike."""

import numpy as np

from phantom.attribution.case import Case
from xray.attention import CROSS

from .grids import averaged, named, of_words

SELF = "unet.*.attn1.probs"
POWER = 4


def propagated(case: Case) -> dict[str, np.ndarray]:
    """S⁴·A, S the self-attention and A the cross-attention of the finest layers, each the mean over
    layers, heads and timesteps. Nguyen et al., arXiv 2309.14303, eq. 4."""
    cross, self_ = (finest(case, pattern) for pattern in (CROSS, SELF))
    spread = np.linalg.matrix_power(self_, POWER) @ cross  # (h·w, 77)
    return named(case.words, averaged([of_words(spread, case.words)]))


def finest(case: Case, pattern: str) -> np.ndarray:
    """The mean attention of the layers with most positions, (positions, tokens or positions)."""
    layers = case.look(pattern).values()
    most = max(layer.shape[2] for layer in layers)
    return np.mean([layer.mean((0, 1)) for layer in layers if layer.shape[2] == most], axis=0)
