"""Gradient checkpointing: blocks that compute their values once more on the way back, in place of
keeping them all. Chen et al., arXiv 1604.06174, section 4.2."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from stable_diffusion_tf import attention
from stable_diffusion_tf.attention import Attention, FeedForward
from stable_diffusion_tf.keras_private import all_layers, gradients_forgotten
from stable_diffusion_tf.layers import ResnetBlock

PARTS = {  # layer → its methods whose values are computed anew; of attention also a chunk's alone
    ResnetBlock: ("call",),
    Attention: ("call", "attend"),
    FeedForward: ("call",),
}


@contextmanager
def recomputed(network: keras.Model) -> Iterator[None]:
    """Inside, what is compiled for gradients through a network keeps what goes into its blocks, and
    the values within one block at a time. Not while TensorFlow calls it eagerly."""
    parts = [
        (layer, name)
        for layer in all_layers(network)
        for kind, names in PARTS.items()
        if isinstance(layer, kind)
        for name in names
    ]
    for layer, name in parts:
        object.__setattr__(layer, name, anew(getattr(layer, name)))
    try:
        with gradients_forgotten(), smaller_chunks():
            yield
    finally:
        for layer, name in parts:
            object.__delattr__(layer, name)


def anew(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, recomputed on the way back. TensorFlow's remat takes no None: it is left out."""
    recompute = keras.remat(method)
    return lambda *inputs: recompute(*(x for x in inputs if x is not None))


@contextmanager
def smaller_chunks() -> Iterator[None]:
    """On the way back a chunk of attention has several arrays of its size alive, not one."""
    usual = attention.CHUNK_BYTES
    attention.CHUNK_BYTES = usual // 2
    try:
        yield
    finally:
        attention.CHUNK_BYTES = usual
