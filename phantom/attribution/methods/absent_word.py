"""A word that is not in the prompt: its keys against the queries of a picture without words."""

import numpy as np

from phantom.attribution.case import Case

from .grids import averaged, named

QUERIES, KEYS, PROBS = (f"unet.*.attn2.{what}" for what in ("to_q", "to_k", "probs"))


def absent_word(case: Case) -> dict[str, np.ndarray]:
    """The attention that "a cat" would get of places that read the empty prompt, the mean over
    layers, heads and timesteps; so any word can be looked for in any picture."""
    return named(case.words, np.concatenate([found(case, word) for word in case.words]))


def found(case: Case, word: str) -> np.ndarray:
    """(1, rows, columns)."""
    alone = f"a {word}"
    places = [at for _, some in case.sd.tokenizer.words(alone)[1:] for at in some]
    queries, keys = case.look(QUERIES, prompt=""), case.look(KEYS, prompt=alone)
    heads = [layer.shape[1] for layer in case.look(PROBS).values()]
    layers = map(attention, queries.values(), keys.values(), heads)
    return averaged(layer[..., places].mean((0, 1, 3))[None] for layer in layers)


def attention(queries: np.ndarray, keys: np.ndarray, heads: int) -> np.ndarray:
    """softmax(q·kᵀ/√d): (n, positions, c), (n, 77, c) → (n, heads, positions, 77)."""
    q, k = (x.reshape(*x.shape[:2], heads, -1) for x in (queries, keys))
    logits = np.einsum("nphd,nthd->nhpt", q, k) / np.sqrt(q.shape[-1])
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)
