"""While a network is called: every value in it goes through a function, under its address.

The `call` of each layer instance is wrapped for the time that the network is traced and set free
afterwards, whatever happens; no class is touched, and nothing of it is left in what was compiled
but the values that were asked for.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
from keras import tree

from stable_diffusion_tf.checkpoint.names import address as spell_ours
from stable_diffusion_tf.keras_private import all_layers
from stable_diffusion_tf.layers import Network, Tap

from .addresses import plain

See = Callable[[str, Any], Any]  # address, value → the value that goes on
MISSING = object()


class Visit(NamedTuple):
    """One call of a layer: where it is, of which layer, inside of which ("" for the network
    itself), and what its `call` is given."""

    address: str
    layer: Any
    parent: str
    args: tuple
    kwargs: dict[str, Any]


Meet = Callable[[Visit], None]


def unmet(visit: Visit) -> None:
    """Nobody asks for visits."""


def layers_of(network: keras.Model) -> list:
    """Every layer inside, itself first, and the operations that functional models are made of."""
    found = {}
    for layer in all_layers(network):
        found[id(layer)] = layer
        for operation in getattr(layer, "operations", ()):
            found.setdefault(id(operation), operation)
    return list(found.values())


def spelling(network: keras.Model) -> Callable[[str], str]:
    """How the names of a network's layers are said: ours as diffusers says them."""
    return spell_ours if isinstance(network, Network) else str


def lies_in(address: str, layers: set[str]) -> bool:
    """Whether the address is one of the layers or inside of one."""
    return any(f"{plain(address)}.".startswith(f"{layer}.") for layer in layers)


def addresses(network: Network) -> list[str]:
    """The addresses of all layers of one of our networks, known without calling it."""
    return [spell_ours(layer.path) for layer in layers_of(network) if layer.path]


@contextmanager
def watching(
    network: keras.Model, see: See, inputs: bool = False, meet: Meet = unmet
) -> Iterator[set[str]]:
    """Inside, each call of the network hands every value in it to `see`, in order of execution;
    with `inputs`, what goes into a layer too. `meet` is told of every layer before it is called.

    What is yielded are the layers that were called inside a compiled loop, whose values cannot be
    seen from outside; some loops try one round before, and that round was seen.
    """
    walk = Walk(network, see, inputs, meet)
    kept = []
    try:
        for layer in layers_of(network):
            name = "quantized_call" if getattr(layer, "quantization_mode", None) else "call"
            kept.append((layer, name, vars(layer).get(name, MISSING)))
            # past the layer's own __setattr__, which would note it as a change of the layer
            object.__setattr__(layer, name, walk.wrapped(layer, getattr(layer, name)))
        yield walk.looped
    finally:
        for layer, name, before in kept:
            if before is MISSING:
                object.__delattr__(layer, name)
            else:
                object.__setattr__(layer, name, before)


class Walk:
    """Where the execution is: the layers that it is inside of, and how often each was called."""

    def __init__(self, network: keras.Model, see: See, inputs: bool, meet: Meet):
        self.network, self.see, self.inputs, self.meet = network, see, inputs, meet
        self.spell = spelling(network)
        self.level = LEVELS[keras.backend.backend()]
        self.inside: list[str] = []
        self.calls: Counter[str] = Counter()
        self.looped: set[str] = set()

    def wrapped(self, layer: Any, call: Callable) -> Callable:
        signature = inspect.signature(call)

        def watched(*args, **kwargs):
            if not self.enters(layer):
                return call(*args, **kwargs)
            address = self.enter(layer)
            try:
                self.meet(Visit(address, layer, "".join(self.inside[-2:-1]), args, kwargs))
                if self.inputs:
                    args, kwargs = self.taken(address, signature, args, kwargs)
                return self.shown(address, call(*args, **kwargs))
            finally:
                self.inside.pop()

        return watched

    def enters(self, layer: Any) -> bool:
        """Whether this call belongs to the walk: it starts at the network, and what is inside a
        compiled loop is out of reach."""
        if not self.inside:
            return layer is self.network
        if self.level() != self.start:
            self.looped.add(plain(f"{self.inside[-1]}.{self.spell(layer.name)}"))
            return False
        return True

    def enter(self, layer: Any) -> str:
        if not self.inside:
            self.start = self.level()
            self.calls.clear()
            self.looped.clear()
        address = ".".join([*self.inside[-1:], self.spell(layer.name)])
        if not isinstance(layer, Tap):  # which only ever sees one value, if in parts
            self.calls[address] += 1
            if self.calls[address] > 1:
                address = f"{address}#{self.calls[address]}"
        self.inside.append(address)
        return address

    def shown(self, address: str, value: Any) -> Any:
        """What a layer gives out, each tensor through `see`."""
        if keras.ops.is_tensor(value):
            return self.see(address, value)
        return self.each(value, lambda place: f"{address}:{place}")

    def taken(self, address: str, signature: inspect.Signature, args: tuple, kwargs: dict):
        """What a layer takes in, each tensor through `see`."""
        bound = signature.bind(*args, **kwargs)
        tensors = [x for x in tree.flatten(dict(bound.arguments)) if keras.ops.is_tensor(x)]
        if len(tensors) == 1:
            seen = tree.map_structure(
                lambda x: self.see(f"{address}:in", x) if keras.ops.is_tensor(x) else x,
                dict(bound.arguments),
            )
        else:
            seen = self.each(dict(bound.arguments), lambda place: f"{address}:in.{place}")
        bound.arguments.update(seen)
        return bound.args, bound.kwargs

    def each(self, values: Any, name: Callable[[str], str]) -> Any:
        """Nested values, each tensor through `see` under the name of its place: '1', '0.2', 'x'."""

        def seen(path: tuple, value: Any) -> Any:
            if not keras.ops.is_tensor(value):
                return value
            return self.see(name(".".join(map(str, path))), value)

        flat = [seen(path, value) for path, value in tree.flatten_with_path(values)]
        return tree.pack_sequence_as(values, flat)


def tensorflow_level() -> Any:
    import tensorflow as tf

    return id(tf.compat.v1.get_default_graph())


def jax_level() -> Any:
    from jax.extend.core import get_opaque_trace_state

    return get_opaque_trace_state()


def one_level() -> None:
    """Loops are spelled out, round by round."""


LEVELS = {
    "tensorflow": tensorflow_level,
    "jax": jax_level,
    "torch": one_level,
    "openvino": one_level,
}
