"""The four networks of a Keras port of Stable Diffusion 1.x as one checkpoint."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from . import keras_order
from .folder import OTHER_CONTEXTS, SD1
from .h5 import Weights, network_in, open_weights, read_array
from .keras_order import Layer
from .names import KERNEL_AXES
from .single import told_config
from .strict import some
from .tensors import Source

VAE_LINEAR = re.compile(r"attentions\.0\.to_(q|k|v|out\.0)\.weight$")  # 1×1 convolutions there
TITLES = {
    "text_encoder": "text encoder",
    "unet": "UNet",
    "encoder": "VAE encoder",
    "decoder": "VAE decoder",
}
AS_WIDE_AS_TEXT = (  # along diffusers' second axis
    "text_model.embeddings.position_embedding.weight",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
)


class KerasTensors:
    """A source of arrays in Keras' order of axes. `arrays`: diffusers name → something that has a
    shape, and of which `read` makes an array."""

    def __init__(self, place: str, arrays: dict[str, Any], read: Callable[[Any], np.ndarray]):
        self.place, self.arrays, self.read = place, arrays, read

    def shapes(self) -> dict[str, tuple[int, ...]]:
        empty = {name: np.broadcast_to(0, tuple(a.shape)) for name, a in self.arrays.items()}
        return {name: with_diffusers_axes(name, value).shape for name, value in empty.items()}

    def get(self, key: str) -> np.ndarray:
        return with_diffusers_axes(key, self.read(self.arrays[key]))


def with_diffusers_axes(name: str, value: np.ndarray) -> np.ndarray:
    """A view of an array that has Keras' axes."""
    if VAE_LINEAR.search(name) and value.shape[:-2] == (1, 1):
        value = value[0, 0]
    if name.endswith("_embedding.weight") or value.ndim not in KERNEL_AXES:
        return value
    return value.transpose(KERNEL_AXES[value.ndim])


class Quartet:
    """`open_one`: the tensors of 'text_encoder', 'unet', 'encoder' or 'decoder'."""

    def __init__(self, place: Path, open_one: Callable[[str], KerasTensors]):
        self.place, self.open_one = place, open_one
        open_one("text_encoder")  # which tells another model at once

    def config(self, part: str) -> dict[str, Any]:
        return {} if part == "scheduler" else told_config(part, self.source(part))

    def source(self, part: str) -> Source:
        if part != "vae":
            return self.open_one(part)
        encoder, decoder = self.open_one("encoder"), self.open_one("decoder")
        place = f"{encoder.place} with {decoder.place}"
        return KerasTensors(place, encoder.arrays | decoder.arrays, encoder.read)


def places_of(network: str, head: Sequence[Layer], count: int) -> dict[str, str]:
    """diffusers name → place in a file of Keras 3, in order, of a network with `count` tensors.
    `head`: the first layers of the UNet."""
    depth = round((count - 4) / 16)  # of the text encoder: 16 tensors a layer, and 4 around them
    layers = {
        "text_encoder": partial(keras_order.text_encoder, depth),
        "unet": partial(keras_order.unet, head),
        "encoder": keras_order.encoder,
        "decoder": keras_order.decoder,
    }
    return keras_order.tensors(layers[network]())


def tensors_of(
    place: str,
    network: str,
    head: Sequence[Layer],
    arrays: Sequence[Any],
    read: Callable[[Any], np.ndarray],
) -> KerasTensors:
    """The tensors of a network, of arrays in the order of its layers.

    Raises UsageError where there are more or fewer than in Stable Diffusion 1.x, or it is another.
    """
    names = places_of(network, head, len(arrays))
    if len(names) != len(arrays):
        raise UsageError(
            f"{place} holds {len(arrays)} tensors, and a {TITLES[network]} has {len(names)}; "
            f"fetch it again"
        )
    found = KerasTensors(place, dict(zip(names, arrays, strict=True)), read)
    shapes = found.shapes()
    widths = [width for name in AS_WIDE_AS_TEXT for width in shapes.get(name, ())[1:]]
    others = [OTHER_CONTEXTS[width] for width in widths if width in OTHER_CONTEXTS]
    if others:
        raise UsageError(f"{place} is of {others[0]}; {SD1}")
    return found


def open_network(weights: Weights, network: str, head: Sequence[Layer]) -> KerasTensors:
    """The tensors in a file. Raises UsageError where it does not hold all of the network."""
    arrays, place = list(weights.arrays.values()), str(weights.place)
    if weights.layout == "keras 3":
        paths = places_of(network, head, len(arrays)).values()
        odd = sorted(set(paths) ^ weights.arrays.keys())
        if odd:
            raise UsageError(
                f"{place} is not as keras-cv 0.9 saves a {TITLES[network]}: missing or not known "
                f"{some(odd)}; save the weights again with it"
            )
        arrays = [weights.arrays[path] for path in paths]
    return tensors_of(place, network, head, arrays, read_array)


def open_folder(
    folder: Path, mine: Callable[[Weights], bool], head: Sequence[Layer], usual: Mapping[str, str]
) -> Quartet:
    """The .h5 files of a folder, each told by its content. `usual`: network → its usual file.

    Raises UsageError where a file is broken or a network is missing.
    """
    found = networks_in(folder, mine)
    missing = [name for network, name in usual.items() if network not in found]
    if missing:
        there = ", ".join(path.name for path in sorted(folder.glob("*.h5")))
        raise UsageError(
            f"{folder} has nothing that could be {', '.join(missing)} among its .h5 files "
            f"({there}); fetch what is missing"
        )
    return Quartet(folder, lambda network: open_network(found[network], network, head))


def networks_in(folder: Path, mine: Callable[[Weights], bool]) -> dict[str, Weights]:
    """Network → the one file that is `mine`. Where the files of both ports lie in one folder, as
    they were published, the VAE encoder may be of either."""
    found: dict[str, Weights] = {}
    for weights in sorted(map(open_weights, sorted(folder.glob("*.h5"))), key=mine):
        network = network_in(weights)
        if network is None or not (mine(weights) or network == "encoder"):
            continue
        if network in found and mine(found[network]):
            raise UsageError(
                f"{found[network].place} and {weights.place} are both a {TITLES[network]}; "
                f"leave one of them in the folder"
            )
        found[network] = weights
    return found
