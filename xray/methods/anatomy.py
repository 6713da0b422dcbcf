"""What a model is made of: its layers with their parameters and multiply-accumulates, and blocks.

Known without computing anything, from the shapes alone. What counts as a multiply-accumulate (MAC)
is the product inside of a convolution, a dense layer, and attention's two products, q·kᵀ and
probabilities·v. Norms, activations, softmax, sums and the look-up of tokens do not count: they are
no products of matrices, and in SD 1.x far below a hundredth of the whole.
"""

import math
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any, NamedTuple

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.layers import Network
from xray.probe.addresses import TapInfo, plain
from xray.probe.survey import (
    ORDER,
    asked,
    layers_of,
    lies_in,
    one_of,
    skeleton_of,
    spelling,
    survey,
)

KINDS = {4: "convolution", 2: "dense"}  # axes of a kernel → what the layer is
ATTENTION = "attention"
UNREAD = ("text_model.embeddings.position_ids",)  # 0, 1, 2 …, in some files
BLOCK = re.compile(  # what lies around the blocks, and a block's own name
    r"(?:unet|vae(?:\.(?:en|de)coder)?|text_encoder\.text_model(?:\.encoder)?)\.(\w+(?:\.\d+)?)"
)


class Layer(NamedTuple):
    """What gives out a value and has weights or multiplies."""

    address: str
    kind: str  # convolution, dense, attention; of all else the name of its class
    shape: tuple[int, ...]  # of what it gives out
    parameters: int
    macs: int


class Block(NamedTuple):
    """A row of the table: a block of one part of the model."""

    part: str
    name: str
    shape: tuple[int, ...]  # where its work is done: rows × columns × channels, or tokens × width
    attends: bool
    parameters: int
    macs: dict[str, int]  # by kind of layer
    taps: int

    @property
    def gmacs(self) -> float:
        return sum(self.macs.values()) / 1e9


# --- layers ------------------------------------------------------------------------------------


def layers(network: Network, inputs: Sequence[Any]) -> list[Layer]:
    """Every layer that has weights or multiplies, in order of execution, when the network is
    called with such inputs (arrays or `keras.KerasTensor`s)."""
    return weigh(network, survey(network, inputs))


def weigh(network: Network, taps: Sequence[TapInfo]) -> list[Layer]:
    """The layers behind the taps of a network."""
    spell = spelling(network)
    by_address = {spell(layer.path.replace("/", ".")): layer for layer in layers_of(network)}
    shapes = {tap.address: tap.shape for tap in taps}
    found = [
        measured(by_address[plain(address)], address, shapes)
        for address in shapes
        if ":" not in address
    ]
    return [layer for layer in found if layer.parameters or layer.macs]


def measured(layer: Any, address: str, shapes: dict[str, tuple[int, ...]]) -> Layer:
    """A layer at one of its calls; only the first call owns its parameters."""
    own = [w for w in layer.weights if w.path.rpartition("/")[0] == layer.path]
    kernels = [w.shape for w in own if w.name == "kernel"]
    shape, kind, macs = shapes[address], type(layer).__name__, 0
    if kernels:
        kind, macs = KINDS[len(kernels[0])], product_macs(shape, kernels[0])
    elif address.endswith(".probs"):
        width = shapes[address.removesuffix("probs") + "heads"][-1]
        kind, macs = ATTENTION, attention_macs(shape, width)
    parameters = sum(math.prod(w.shape) for w in own) if address == plain(address) else 0
    return Layer(address, kind, shape, parameters, macs)


def product_macs(shape: Sequence[int], kernel: Sequence[int]) -> int:
    """Of a convolution (kernel h, w, in, out) or a dense layer (in, out) that gives out `shape`,
    channels last: all of the kernel for each position."""
    return math.prod(shape[:-1]) * math.prod(kernel)


def attention_macs(probs: Sequence[int], width: int) -> int:
    """Of q·kᵀ and probabilities·v; probs: (b, heads, queries, keys), width: of a head."""
    return 2 * math.prod(probs) * width


# --- blocks ------------------------------------------------------------------------------------


def blocks(sd: StableDiffusion) -> tuple[list[Block], list[Layer]]:
    """The model's blocks and layers in order of execution, for one picture of its size and one
    prompt, without guidance; no weights are loaded."""
    rows, every = [], []
    for part in ORDER:
        network = skeleton_of(sd, part)
        taps = survey(network, [one_of(x) for x in asked(sd, part)])
        found = weigh(network, taps)
        rows += blocks_of(part, found, taps)
        every += found
    return rows, every


def blocks_of(part: str, found: Sequence[Layer], taps: Sequence[TapInfo]) -> list[Block]:
    """The layers of a part, put together by the block that they lie in."""
    names = dict.fromkeys(BLOCK.match(layer.address)[0] for layer in found)
    return [
        block(part, name, inside(name, found), [t for t in taps if lies_in(t.address, {name})])
        for name in names
    ]


def inside(name: str, found: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in found if lies_in(layer.address, {name})]


def block(part: str, name: str, found: Sequence[Layer], taps: Sequence[TapInfo]) -> Block:
    macs: dict[str, int] = {kind: 0 for kind in (*KINDS.values(), ATTENTION)}
    for layer in found:
        if layer.macs:
            macs[layer.kind] += layer.macs
    return Block(
        part,
        BLOCK.match(name)[1],
        workplace(name, taps),
        macs[ATTENTION] > 0,
        sum(layer.parameters for layer in found),
        macs,
        len(taps),
    )


def workplace(name: str, taps: Sequence[TapInfo]) -> tuple[int, ...]:
    """The shape, without the batch, after a block's first residual block, as a change of size may
    follow; of a block that has none, of what it gives out."""
    shapes = {tap.address.split(":")[0]: tap.shape[1:] for tap in taps}
    return shapes.get(f"{name}.resnets.0", shapes.get(name, ()))


def totals(rows: Sequence[Block]) -> dict[str, tuple[int, float, int]]:
    """Part → its parameters, its GMACs, and the taps in its blocks."""
    parts = dict.fromkeys(row.part for row in rows)
    return {part: total([row for row in rows if row.part == part]) for part in parts}


def total(rows: Sequence[Block]) -> tuple[int, float, int]:
    return (
        sum(row.parameters for row in rows),
        sum(row.gmacs for row in rows),
        sum(row.taps for row in rows),
    )


# --- one picture, and the checkpoint --------------------------------------------------------------


def calls_of(sd: StableDiffusion, steps: int) -> dict[str, int]:
    """Part → how often it computes for one picture."""
    rounds = {"unet": len(sd.timesteps(steps)), "encoder": 0}
    return {part: rounds.get(part, 1) * asked(sd, part)[0].shape[0] for part in ORDER}


def shares(rows: Sequence[Block], calls: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Parameters and work → part → its share of them; the work is that of one picture."""
    held, done = (dict.fromkeys(calls, 0.0) for _ in range(2))
    for row in rows:
        held[row.part] += row.parameters
        done[row.part] += row.gmacs * calls[row.part]
    told = {"parameters": held, "work": done}
    return {
        name: {part: value / sum(parts.values()) for part, value in parts.items()}
        for name, parts in told.items()
    }


def sum_by_place(rows: Sequence[Block]) -> dict[str, int]:
    """Parameters by the folder that they lie in: encoder and decoder share one."""
    found = {"text_encoder": 0, "unet": 0, "vae": 0}
    for row in rows:
        found[row.part if row.part in found else "vae"] += row.parameters
    return found


def stored_in(sd: StableDiffusion) -> dict[str, int]:
    """How many numbers the checkpoint's tensors have, by the folder that they lie in."""
    return {
        place: sum(
            math.prod(shape)
            for name, shape in sd.checkpoint.source(place).shapes().items()
            if not any(fnmatch(name, pattern) for pattern in UNREAD)
        )
        for place in ("text_encoder", "unet", "vae")
    }
