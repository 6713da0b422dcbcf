"""Where does a model make its first NaN?"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from stable_diffusion_tf.compiled import is_float
from xray.probe.interventions import Probe

from .structure import as_array, values_of


@dataclass(frozen=True)
class FirstNaN:
    """The first value, in order of computation, that holds a NaN or an infinity.

    address: of the value; nans, infs: how many are in it; size: how many numbers it has. inputs:
    the address of each input of its layer → how many of its numbers are not finite; weights: the
    name of each of the layer's weights, likewise.
    """

    address: str
    nans: int
    infs: int
    size: int
    inputs: dict[str, int]
    weights: dict[str, int]

    @property
    def begins_here(self) -> bool:
        """Whether what went into the layer, and its weights, were finite."""
        return not any([*self.inputs.values(), *self.weights.values()])

    def __str__(self) -> str:
        first, count = ("NaN", self.nans) if self.nans else ("infinity", self.infs)
        more = f" and {self.infs} infinite" if self.nans and self.infs else ""
        told = [
            f"{self.address} gives the first {first}: {count}{more} of {self.size} numbers",
            said("its input is", "its inputs are", self.inputs),
            said("its weight is", "its weights are", self.weights),
        ]
        return "; ".join(filter(None, told))


def said(one: str, several: str, counts: dict[str, int]) -> str:
    """Whether such values are finite, in words; nothing where there are none."""
    if not counts:
        return ""
    bad = [name.partition(":in.")[2] or name for name, count in counts.items() if count]
    names = f": {', '.join(bad)}" if len(counts) > 1 else ""
    return f"{several if len(counts) > 1 else one} {f'not finite{names}' if bad else 'finite'}"


def first_nan(model: keras.Model, x: Any) -> FirstNaN | None:
    """The first value that is not finite, as the model computes; None where all values are.

    model: any built Keras 3 model, of any precision. x: what it is given, as `capture` takes it:
    an array, a list or a dict as one argument, a tuple as several. Only counts leave the compiled
    function, so that it takes no more memory than a call. What cannot be seen, docs/any-model.md
    says. Raises UsageError, as `capture`.

    print(xray.first_nan(model, x))
    # net.block.conv1 gives the first NaN: 12 of 4096 numbers; its input is finite; its weights are
    # not finite: kernel
    """
    counts, structure = values_of(model, x, Probe(["*", "*:in"], unfit))
    outputs = {at: count for at, count in counts.items() if ":in" not in at}
    address = next((at for at, (nans, infs, _) in outputs.items() if nans + infs), None)
    if address is None:
        return None
    layer = address.split(":")[0]
    inputs = {at: int(n + i) for at, (n, i, _) in counts.items() if at.startswith(f"{layer}:in")}
    weights = {w.path: bad(w) for w in getattr(structure.visit(address).layer, "weights", ())}
    return FirstNaN(address, *map(int, counts[address]), inputs, names_within(weights))


def unfit(value: Any) -> Any:
    """How many NaN, how many infinities, how many numbers a value has: (3,) int32."""
    value = value if is_float(value) else ops.cast(value, "float32")
    found = [ops.isnan(value), ops.isinf(value), ops.ones_like(value, "bool")]
    return ops.stack([ops.sum(ops.cast(which, "int32")) for which in found])


def bad(weight: keras.Variable) -> int:
    """How many numbers of a weight are not finite."""
    return int(np.sum(~np.isfinite(as_array(weight.value)))) if is_float(weight) else 0


def names_within(weights: dict[str, int]) -> dict[str, int]:
    """Paths without the folders that they have in common: 'net/block/kernel' → 'kernel'."""
    split = [path.split("/") for path in weights]
    alike = 0
    while split and all(len(p) > alike + 1 and p[alike] == split[0][alike] for p in split):
        alike += 1
    return {"/".join(path.split("/")[alike:]): count for path, count in weights.items()}
