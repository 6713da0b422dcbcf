"""keras-cv's Stable Diffusion: the h5 files of its four networks, or the live model itself.

Published, by Keras 2, as kcv_encoder.h5 (the *text* encoder), kcv_diffusion_model.h5,
kcv_decoder.h5 and vae_encoder.h5; Keras 3 makes `.weights.h5` of them, in another layout.
"""

from pathlib import Path
from typing import Any

import keras

from ..errors import UsageError
from .h5 import Weights, network_in, readable
from .keras_order import KERAS_CV_HEAD
from .quartet import KerasTensors, Quartet, open_folder, tensors_of
from .seed_h5 import of_one_layer
from .tensors import Checkpoint

USUAL = {
    "text_encoder": "kcv_encoder.h5",
    "unet": "kcv_diffusion_model.h5",
    "encoder": "vae_encoder.h5",
    "decoder": "kcv_decoder.h5",
}
ATTRIBUTES = {  # network → what keras-cv's model calls it
    "text_encoder": "text_encoder",
    "unet": "diffusion_model",
    "encoder": "image_encoder",
    "decoder": "decoder",
}


def layer_by_layer(weights: Weights) -> bool:
    return not of_one_layer(weights)


def recognises(folder: Path) -> bool:
    """Whether one of the .h5 files in the folder holds a network of Stable Diffusion, or all are
    broken, of which `open_quartet` will tell. The seed's are to be asked for first."""
    whole = list(readable(folder))
    return any(network_in(weights) for weights in whole) or (not whole and any(folder.glob("*.h5")))


def open_quartet(folder: Path) -> Checkpoint:
    """keras-cv's four files, whatever their names and in either layout, as a checkpoint.

    Raises UsageError where one is broken, missing, or not of Stable Diffusion 1.x.
    """
    return open_folder(folder, layer_by_layer, KERAS_CV_HEAD, USUAL)


def from_live(model: Any) -> Checkpoint:
    """A live `keras_cv.models.StableDiffusion` as a checkpoint; a tensor is copied when it is asked
    for. keras-cv makes, and downloads, those of its networks that were not used before.

    Raises UsageError where it is another model, a StableDiffusionV2 for one.
    """
    missing = [name for name in ATTRIBUTES.values() if name not in dir(model)]
    if missing:
        raise UsageError(
            f"a {type(model).__name__} has no {missing[0]}, so it is no "
            f"keras_cv.models.StableDiffusion; hand over one of those"
        )
    return Quartet(Path(type(model).__name__), lambda network: live_network(model, network))


def live_network(model: Any, network: str) -> KerasTensors:
    place = f"{type(model).__name__}.{ATTRIBUTES[network]}"
    variables = getattr(model, ATTRIBUTES[network]).weights
    return tensors_of(place, network, KERAS_CV_HEAD, variables, keras.ops.convert_to_numpy)
