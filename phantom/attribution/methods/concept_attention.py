"""What cross-attention brings to a place, held against what the word has to bring."""

from collections.abc import Mapping

import numpy as np

from phantom.attribution.case import Case

from .grids import averaged, named

OUTPUTS, VALUES = "unet.*.attn2.heads", "unet.*.attn2.to_v"


def concept_attention(case: Case) -> dict[str, np.ndarray]:
    """The inner product of the attention's output at a place and the word's value vector, softmax
    over the words, the mean over layers and timesteps: the output space of ConceptAttention
    (Helbling et al., arXiv 2502.04320, eq. 7), which was written for joint attention."""
    layers = zip(case.look(OUTPUTS).values(), case.look(VALUES).values(), strict=True)
    return named(case.words, averaged(similar(*layer, case.words) for layer in layers))


def similar(outputs: np.ndarray, values: np.ndarray, words: Mapping[str, list[int]]) -> np.ndarray:
    """(n, positions, heads, d) and (n, 77, heads·d) → (words, positions)."""
    outputs = outputs.reshape(*outputs.shape[:2], -1)  # (n, positions, heads·d)
    words = np.stack([values[:, places].mean(1) for places in words.values()], axis=1)
    products = np.einsum("npc,nwc->nwp", outputs, words)
    shares = np.exp(products - products.max(1, keepdims=True))
    return (shares / shares.sum(1, keepdims=True)).mean(0)
