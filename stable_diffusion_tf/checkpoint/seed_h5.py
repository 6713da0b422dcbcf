"""The h5 files of the seed, divamgupta/stable-diffusion-tensorflow as F. Chollet rewrote it.

Keras 2 wrote them, of models that are a single layer: the network. They were published as
text_encoder.h5, diffusion_model.h5, decoder.h5 and vae_encoder.h5; the last is keras-cv's too.
"""

from pathlib import Path

from .h5 import Weights, network_in, readable
from .keras_order import SEED_HEAD
from .quartet import open_folder
from .tensors import Checkpoint

USUAL = {
    "text_encoder": "text_encoder.h5",
    "unet": "diffusion_model.h5",
    "encoder": "vae_encoder.h5",
    "decoder": "decoder.h5",
}


def of_one_layer(weights: Weights) -> bool:
    layers = {path.split("/")[0] for path in weights.arrays}
    return weights.layout == "keras 2" and len(layers) == 1


def recognises(folder: Path) -> bool:
    """Whether one of the .h5 files in the folder is the seed's."""
    return any(of_one_layer(weights) and network_in(weights) for weights in readable(folder))


def open_quartet(folder: Path) -> Checkpoint:
    """The seed's four files, whatever their names, as a checkpoint.

    Raises UsageError where one is broken, missing, or not of Stable Diffusion 1.x.
    """
    return open_folder(folder, of_one_layer, SEED_HEAD, USUAL)
