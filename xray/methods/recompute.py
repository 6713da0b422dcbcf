"""Gradient checkpointing: blocks that compute their values once more on the way back, in place of
keeping them all. Chen et al., arXiv 1604.06174, section 4.2."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from stable_diffusion_tf.attention import Attention, FeedForward
from stable_diffusion_tf.keras_private import all_layers, gradients_forgotten
from stable_diffusion_tf.layers import ResnetBlock

BLOCKS = (ResnetBlock, Attention, FeedForward)


@contextmanager
def recomputed(network: keras.Model) -> Iterator[None]:
    """Inside, what is compiled for gradients through a network keeps what goes into its blocks, and
    the values within one block at a time. Not while TensorFlow calls it eagerly."""
    blocks = [layer for layer in all_layers(network) if isinstance(layer, BLOCKS)]
    for block in blocks:
        object.__setattr__(block, "call", keras.remat(block.call))
    try:
        with gradients_forgotten():
            yield
    finally:
        for block in blocks:
            object.__delattr__(block, "call")
