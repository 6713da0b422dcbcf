"""The list of every value that can be read or replaced, found without computing anything."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import keras
import numpy as np
from keras import tree

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.checkpoint.strict import skeleton
from stable_diffusion_tf.compiled import Outline, gaps_told
from stable_diffusion_tf.config import UNetConfig
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.layers import Tap
from stable_diffusion_tf.pipeline import NETWORKS
from xray.viewer.page import SMALL, framed, write_page

from .addresses import TapInfo, check_patterns, describe, matches, part_axis
from .hooks import layers_of, lies_in, spelling, watching

Chosen = Callable[[str], bool]  # address → whether it is
ORDER = ("text_encoder", "unet", "decoder", "encoder")  # as a run calls them; the encoder last
FRAME, ROW = 190, 48  # pixels in a notebook: of what stands around the rows, and of each


class TapTable(list):
    """A list of `TapInfo`, shown as a table."""

    SHOWN = 40

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return TapTable(found) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        return "\n".join([*map(str, self[: self.SHOWN]), *self.rest()])

    def _repr_html_(self) -> str:
        """All of it, as a page that is narrowed by typing."""
        told = {
            "address": [tap.address for tap in self],
            "shape": [" × ".join(map(str, tap.shape)) for tap in self],
            "dims": [", ".join(tap.dims) for tap in self],
            "dtype": [tap.dtype for tap in self],
            "bytes": [tap.bytes for tap in self],
            "meaning": [tap.meaning for tap in self],
        }
        height = min(SMALL, FRAME + ROW * len(self))
        return framed(write_page("taps", {"columns": told}), height)

    def rest(self) -> list[str]:
        """What is not shown, in a line."""
        more = len(self) - self.SHOWN
        return [f"… and {more} more; narrow the pattern, or print(*taps)"] if more > 0 else []


def taps(model: StableDiffusion | keras.Model, *inputs: Any) -> TapTable:
    """Every value that a layer gives out, in order of execution; those that match, where a glob or
    several are named: taps(sd, "unet.*.attn2.*"). A notebook shows a table to type into.

    model: a StableDiffusion (its parts for one picture of its size with both halves of the
    guidance; no weights are loaded), or any Keras 3 model. inputs: arrays or
    `keras.KerasTensor`s, as the model takes them; by default those it was built for, in a batch
    of one. Raises UsageError where a model does not say what it takes, and for a glob that matches
    nothing.
    """
    patterns = [given for given in inputs if isinstance(given, str)]
    given = [one for one in inputs if not isinstance(one, str)]
    if isinstance(model, StableDiffusion):
        if given:
            raise UsageError("a StableDiffusion knows what it takes; name globs, or nothing")
        parts = (survey(skeleton_of(model, part), asked(model, part)) for part in ORDER)
        found = [tap for part in parts for tap in part]
    else:
        found = survey(model, given or built_for(model))
    check_patterns(patterns, [tap.address for tap in found])
    return TapTable(
        tap for tap in found if not patterns or any(matches(p, tap.address) for p in patterns)
    )


def survey(network: keras.Model, inputs: Sequence[Any]) -> list[TapInfo]:
    """Every value that a layer gives out when the network is called with such inputs."""
    specs = tree.map_structure(spec, tuple(inputs))
    if not network.built:
        network(*specs)
    found: dict[str, TapInfo] = {}

    def see(address: str, value: Any) -> Any:
        tap = describe(address, value.shape, keras.backend.standardize_dtype(value.dtype))
        found[address] = joined(found[address], tap) if address in found else tap
        return value

    every = in_plain_sight(network, lambda _: True)
    with gaps_told(), watching(network, see) as looped, every:
        Outline(partial(network, training=False)).compute_output_spec(*specs)
    return [tap for address, tap in found.items() if not lies_in(address, looped)]


def never(_: str) -> bool:
    return False


def joined(one: TapInfo, more: TapInfo) -> TapInfo:
    """A value that comes in parts, a few queries at a time."""
    axis = part_axis(one.dims)
    shape = [*one.shape]
    shape[axis] += more.shape[axis]
    return TapInfo(one.address, tuple(shape), one.dtype, one.meaning, one.dims)


@contextmanager
def in_plain_sight(network: keras.Model, read: Chosen, edited: Chosen = never) -> Iterator[None]:
    """Inside, the taps whose addresses are chosen see their values even where attention comes in
    chunks or is a kernel of the backend's."""
    spell = spelling(network)
    taps = [layer for layer in layers_of(network) if isinstance(layer, Tap)]
    for tap in taps:
        address = spell(tap.path.replace("/", "."))
        tap.watched, tap.edited = read(address), edited(address)
    try:
        yield
    finally:
        for tap in taps:
            tap.watched = tap.edited = False


# --- what goes in ------------------------------------------------------------------------------


def spec(x: Any) -> keras.KerasTensor:
    """Shape and dtype of an array, a tensor or a number."""
    x = x if hasattr(x, "dtype") else np.asarray(x, np.float32)
    return keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype))


def built_for(model: keras.Model) -> tuple:
    if not getattr(model, "inputs", None):
        raise UsageError(f"{model.name} does not say what it takes: hand its inputs to taps() too")
    return (tree.map_structure(one_of, model.input),)


def one_of(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.KerasTensor((1, *x.shape[1:]), x.dtype)


def skeleton_of(sd: StableDiffusion, part: str) -> keras.Model:
    """The part, if it is in memory; else one of its shape, without weights."""
    if part in sd.networks:
        return sd.networks[part]
    config = {"text_encoder": sd.text_config, "unet": sd.unet_config}.get(part, sd.vae_config)
    return bare(part, config)


@lru_cache(maxsize=16)
def unet_taps(config: UNetConfig, given: tuple[tuple[tuple[int, ...], str], ...]) -> list[TapInfo]:
    """The values of a UNet of this anatomy, for such arrays; looked for once."""
    return survey(bare("unet", config), [keras.KerasTensor(*spec) for spec in given])


@lru_cache(maxsize=16)
def bare(part: str, config: Any) -> keras.Model:
    return skeleton(lambda: NETWORKS[part][2](config))


def asked(sd: StableDiffusion, part: str) -> list[keras.KerasTensor]:
    """What a part is given when one picture is drawn."""
    text, unet, side = sd.text_config, sd.unet_config, sd.size // sd.vae_config.factor
    length, guided = text.max_position_embeddings, unet.time_cond_proj_dim
    halves = 1 if guided else 2
    latent = (side, side, unet.in_channels)
    shapes = {
        "text_encoder": [((2, length), "int32")],
        "unet": [
            ((halves, *latent), "float32"),
            ((halves,), "int32"),
            ((halves, length, unet.cross_attention_dim), "float32"),
            *([((halves, guided), "float32")] if guided else []),
        ],
        "encoder": [((1, sd.size, sd.size, 3), "float32")],
        "decoder": [((1, *latent), "float32")],
    }
    return [keras.KerasTensor(*shape_and_dtype) for shape_and_dtype in shapes[part]]
