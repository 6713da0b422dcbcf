"""Where a layer stands in its model, whatever Keras called it: its attribute, or its turn.

Keras numbers the layers that nobody named for the whole process: the same class, built twice, has
`dense_3` once and `dense_17` the next time. The attribute that holds a layer is the same in both,
and so is its turn among the layers of its class that one parent calls.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from stable_diffusion_tf.compiled import to_numpy
from xray.probe import watched
from xray.probe.hooks import Visit, watching
from xray.probe.interventions import Probe, Reads
from xray.probe.survey import spec

# Where Keras, and TensorFlow for it, keep all layers: that says nothing of what one is for.
KERAS_OWN = ("_layers", "_operations", "_functional", "_modules", "_self_unconditional")


class Structure:
    """The places of a model's layers, noted down as they are called: `meet` each, in order.

    visits: address → the call that it means; places: address → the same said by structure, such
    as '.blocks.0.Dense2'.
    """

    def __init__(self):
        self.visits: dict[str, Visit] = {}
        self.places: dict[str, str] = {}
        self.turns: dict[tuple[str, str], list] = {}  # parent, class → its layers as they came
        self.calls: Counter[str] = Counter()

    def meet(self, visit: Visit) -> None:
        if visit.address in self.visits:  # a value that comes in parts, or a second trace
            return
        self.visits[visit.address] = visit._replace(args=(), kwargs={})  # no tensor is held on to
        place = self.place(visit)
        self.calls[place] += 1
        again = f"#{self.calls[place]}" if self.calls[place] > 1 else ""
        self.places[visit.address] = place + again

    def place(self, visit: Visit) -> str:
        if not visit.parent:
            return ""
        around = self.visits[visit.parent]
        return f"{self.places[visit.parent]}.{self.step(around.layer, visit)}"

    def step(self, parent: Any, visit: Visit) -> str:
        """From a layer to one that it calls: the attribute, else the class and the turn."""
        for path, layer in attributes(parent):
            if layer is visit.layer:
                return path
        kind = type(visit.layer).__name__
        turns = self.turns.setdefault((visit.parent, kind), [])
        if not any(layer is visit.layer for layer in turns):
            turns.append(visit.layer)
        return f"{kind}{1 + [id(layer) for layer in turns].index(id(visit.layer))}"

    def where(self, address: str) -> str:
        """The place of a value: that of its layer, and which part of the output it is."""
        layer, colon, part = address.partition(":")
        return self.places[layer] + colon + part

    def visit(self, address: str) -> Visit:
        """The call that gave a value out."""
        return self.visits[address.split(":")[0]]


def attributes(layer: Any) -> Iterator[tuple[str, Any]]:
    """The layers that a layer holds, each by its attribute: 'proj', 'blocks.0', 'heads.left'."""
    own = vars(layer)
    for name, value in {**own, **own.get("_modules", {})}.items():  # torch keeps layers apart
        if not name.startswith(KERAS_OWN):
            yield from layers_in(value, name)


def layers_in(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, keras.Operation):
        yield path, value
        return
    several = dict(enumerate(value)) if isinstance(value, list | tuple) else value
    if isinstance(several, Mapping):
        for key, part in several.items():
            yield from layers_in(part, f"{path}.{key}")


# --- calling ------------------------------------------------------------------------------------


def as_arguments(x: Any) -> tuple:
    """What a model is given: a tuple is several arguments, as `capture` takes it."""
    return x if isinstance(x, tuple) else (x,)


def values_of(model: keras.Model, x: Any, probe: Probe) -> tuple[Reads, Structure]:
    """What a probe reads in one call of a model, and where its layers stand."""
    inputs, reads, structure = as_arguments(x), Reads(), Structure()
    if not model.built:  # variables are not made inside of what is compiled
        model(*keras.tree.map_structure(spec, inputs))
    watched(model, [probe], [], reads, structure.meet)(*inputs, step=0)
    return reads, structure


class Enough(BaseException):
    """The call that was waited for has come; Keras wraps up what is an Exception."""


def called_at(model: keras.Model, x: Any, address: str) -> Visit:
    """The call at an address with what the layer is given there. Nothing is compiled, and nothing
    computed that comes later. Raises KeyError where the model makes no such call."""
    found = []

    def meet(visit: Visit) -> None:
        if visit.address == address:
            found.append(visit)
            raise Enough

    def call(*inputs: Any) -> None:
        with watching(model, lambda _, value: value, meet=meet):
            model(*inputs, training=False)

    try:
        eagerly(call)(*tensors(x))
    except Enough:
        return found[0]
    raise KeyError(address)


def tensors(x: Any) -> Sequence[Any]:
    return keras.tree.map_structure(keras.ops.convert_to_tensor, as_arguments(x))


def eagerly(call: Callable) -> Callable:
    """The function with nothing noted down for gradients."""
    if keras.backend.backend() != "torch":
        return call
    import torch

    return torch.no_grad()(call)


def as_array(value: Any) -> np.ndarray:
    """A tensor, of Keras or of torch, as NumPy; floats in float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() else value).numpy()
    return to_numpy(value)
