"""The text encoder with parts of its layers ablated, and how near its context stays."""

from collections.abc import Sequence
from functools import partial
from operator import mul
from typing import TYPE_CHECKING

import numpy as np

from stable_diffusion_tf.errors import UsageError
from xray.measure import cosine

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

PARTS = ("self_attn", "mlp")  # of a layer; each adds something to what comes in
ADDED = "text_encoder.text_model.encoder.layers.{}.{}"


def ablations(layers: int, chosen: Sequence[int] = ()) -> dict[str, np.ndarray]:
    """What acts, by name → which parts of which layers that is, (layers, 2) bool: the first layers
    alone, from none to all (as a logit lens), and all but the self-attention of one.

    chosen: the layers to stop after and to look into, counted from 1; the last always is, and by
    default all are. Raises UsageError for one that is not there."""
    if missing := sorted({*chosen} - {*range(1, layers + 1)}):
        raise UsageError(f"--layers {missing[0]} is not one of 1 to {layers}")
    stops = sorted({*chosen, layers}) if chosen else [*range(1, layers + 1)]
    order, everything = np.arange(layers), np.ones((layers, len(PARTS)), bool)
    made = {first_layers(n): everything & (order < n)[:, None] for n in (0, *stops)}
    for n in stops:
        made[all_but_attention(n)] = everything.copy()
        made[all_but_attention(n)][n - 1, 0] = False
    return made


def first_layers(n: int) -> str:
    return ("embeddings alone", "layer 1", "layers 1 and 2")[n] if n < 3 else f"layers 1 to {n}"


def all_but_attention(n: int) -> str:
    return f"all but the attention of layer {n}"


def encode_ablated(sd: "StableDiffusion", texts: Sequence[str], acting: np.ndarray) -> np.ndarray:
    """Contexts (ablations, b, 77, width), where only some parts of the layers act, (ablations,
    layers, 2) bool: the others add nothing (zero ablation), and the final norm is applied."""
    from xray.probe import Edit, capture

    scales = np.repeat(acting, len(texts), axis=0).astype(np.float32)[..., None, None]
    edits = [
        Edit([ADDED.format(layer, part)], partial(mul, scales[:, layer, i]))
        for layer in range(acting.shape[1])
        for i, part in enumerate(PARTS)
    ]
    ids = np.tile(sd.tokenize(texts), (len(acting), 1))
    context, _ = capture(sd.network("text_encoder"), ids, edits=edits)
    return context.reshape(len(acting), len(texts), *context.shape[1:])


def likeness(contexts: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The cosine of each context with that of the whole encoder, all vectors as one: (ablations, b,
    77, width), (b, 77, width) → (ablations, b)."""
    flat = contexts.reshape(*contexts.shape[:2], -1)
    return cosine(flat, whole.reshape(len(whole), -1)[None], axis=-1)
