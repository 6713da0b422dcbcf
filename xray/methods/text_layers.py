"""The text encoder layer by layer: contexts from the state after each, and their pictures."""

from collections.abc import Mapping, Sequence
from functools import partial
from operator import mul
from typing import TYPE_CHECKING

import numpy as np

from xray.measure import cosine

from .drawing import paint

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

ADDED = "text_encoder.text_model.encoder.layers.{}.{}"  # what a part of a layer adds to its input
PARTS = ("self_attn", "mlp")


def from_layers(sd: "StableDiffusion", texts: Sequence[str]) -> np.ndarray:
    """The context as it would be if the embeddings, or any layer, were the last: (layers + 1, b,
    77, width). The layers after it add nothing, so its state reaches the final norm as it is."""
    from xray.probe import Edit, capture

    count, b = sd.text_config.num_hidden_layers, len(texts)
    acting = np.repeat(np.arange(count + 1), b)[:, None, None]  # layers, of each row of the batch
    edits = [
        Edit([ADDED.format(i, part) for part in PARTS], partial(mul, np.float32(i < acting)))
        for i in range(count)
    ]
    ids = np.tile(sd.tokenize(texts), (count + 1, 1))
    context, _ = capture(sd.network("text_encoder"), ids, edits=edits)
    return context.reshape(count + 1, b, *context.shape[1:])


def paint_each(
    sd: "StableDiffusion", contexts: np.ndarray, noise: np.ndarray, run: Mapping
) -> np.ndarray:
    """Each context (b, 77, width) drawn from each noise (n, h, w, 4): (b, n, H, W, 3) uint8."""
    b, n = len(contexts), len(noise)
    images = paint(sd, np.repeat(contexts, n, axis=0), np.tile(noise, (b, 1, 1, 1)), run)
    return images.reshape(b, n, *images.shape[1:])


def likeness(contexts: np.ndarray) -> np.ndarray:
    """The cosine of each layer's context with the last one's, all vectors as one: (layers, b, 77,
    width) → (layers, b)."""
    flat = contexts.reshape(*contexts.shape[:2], -1)
    return cosine(flat, flat[-1:], axis=-1)


def find_onset(shares: np.ndarray) -> int | None:
    """The layer from which on pictures show the thing at least half as often as from the last, and
    none where they never do: (layers,) → its index."""
    if not shares[-1]:
        return None
    below = np.flatnonzero(shares < shares[-1] / 2)
    return int(below[-1]) + 1 if len(below) else 0
