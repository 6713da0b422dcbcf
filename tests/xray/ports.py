"""A small network of every kind of layer that ports get wrong, and ports of it with one fault each.

`a_net` and `b_net` have the same weights; the layers of each have names of their own.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

SIDE, COLOURS, WIDTH = 6, 3, 4
RNG = np.random.default_rng(0)
PICTURE = RNG.standard_normal((2, SIDE, SIDE, COLOURS), dtype=np.float32)
X = {"x": PICTURE, "t": np.array([3, 7], np.int32)}
TANH = partial(keras.activations.gelu, approximate=True)


def net(
    prefix: str,
    ln: float = 1e-3,
    gn: float = 1e-3,
    gelu: Callable = keras.activations.gelu,
    scale: float = 2.0,
    colours: Callable = lambda x: x,
    time: Callable = lambda t: t,
    layout: tuple = (1, 2, 3),
) -> keras.Model:
    """A functional network, seen from one side: the names of its layers begin with the prefix."""

    def named(kind: type, name: str, *args: Any, **options: Any) -> layers.Layer:
        return kind(*args, name=f"{prefix}_{name}", **options)

    x = keras.Input((SIDE, SIDE, COLOURS), name="x")
    t = keras.Input((), dtype="int32", name="t")
    y = named(layers.Conv2D, "conv_in", WIDTH, 3, padding="same")(colours(x))
    y = named(layers.GroupNormalization, "groups", 2, epsilon=gn)(y)
    hears = named(layers.Embedding, "embed", 20, WIDTH)(time(t))
    y = named(layers.Add, "add")([y, named(layers.Reshape, "wide", (1, 1, WIDTH))(hears)])
    y = named(layers.LayerNormalization, "norm", epsilon=ln)(y)
    y = named(layers.Conv2D, "conv", WIDTH, 3, padding="same", activation=gelu)(y)
    y = named(layers.Dense, "mix", WIDTH)(y)
    y = named(layers.Rescaling, "rescale", scale)(y)
    y = named(layers.Dense, "head", 6)(y)
    y = named(layers.Permute, "layout", layout)(y)
    return keras.Model({"x": x, "t": t}, y, name=f"{prefix}_net")


class Timed(keras.Model):
    """A subclassed network with arithmetic of its own between the layers, which nobody sees."""

    def __init__(self, wrong: str = "", **options: Any):
        super().__init__(**options)
        self.wrong = wrong
        self.waves = Waves(turned=wrong == "halves")
        self.layers_in = [layers.Dense(8), layers.Dense(8)]
        self.conv = layers.Conv2D(8, 3)

    def call(self, x):
        picture, t = x["x"], x["t"]
        if self.wrong == "caffe":
            picture = ops.flip(picture, -1)
        picture = (picture - ops.array([0.1, 0.2, 0.4])) * 3
        late = ops.cast(t + 1 if self.wrong == "late" else t, "float32")
        late = late * 1.5 if self.wrong == "stretched" else late
        pace = ops.sin(late[:, None] * ops.arange(1.0, 9.0))
        hears = self.layers_in[1](self.layers_in[0](pace)) + self.waves(t)
        return self.conv(picture) + hears[:, None, None, :]


class Waves(layers.Layer):
    """Sines and cosines of the timestep, (b,) → (b, 8); turned: cosines first."""

    def __init__(self, turned: bool, **options: Any):
        super().__init__(**options)
        self.turned = turned

    def call(self, t):
        angle = ops.cast(t, "float32")[:, None] * ops.array([1.0, 0.5, 0.2, 0.1])
        both = [ops.sin(angle), ops.cos(angle)]
        return ops.concatenate(both[::-1] if self.turned else both, axis=-1)


def filled(model: keras.Model) -> keras.Model:
    """The model with weights that are no initial values: a layer's go by its class and turn."""
    model(X)
    seeds: Counter[str] = Counter()
    for layer in model.layers:
        kind = type(layer).__name__
        seeds[kind] += 1
        rng = np.random.default_rng([seeds[kind], *kind.encode()])
        layer.set_weights([rng.standard_normal(w.shape, np.float32) for w in layer.weights])
    return model


def functional(change: Callable = lambda weights: None, **options: Any) -> tuple:
    """The network and a port of it: built with options, its weights, by name, then changed."""
    a, b = filled(net("a")), filled(net("b", **options))
    weights = {w.path.removeprefix("b_"): w for w in b.weights}
    change(weights)
    return a, b


def subclassed(wrong: str = "") -> tuple:
    return filled(Timed(name="net")), filled(Timed(wrong, name="net"))


def turned(path: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """A change of one weight."""
    return lambda weights: weights[path].assign(make(weights[path].numpy()))


def as_torch_has_it(kernel: np.ndarray) -> np.ndarray:
    """The numbers of a torch kernel in the shape of Keras' one, (…, in, out): not transposed."""
    axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
    return np.ascontiguousarray(kernel.transpose(axes)).reshape(kernel.shape)


class Fault(NamedTuple):
    """How the two are made, where they part, and the cause, None where no test knows it."""

    make: Callable[[], tuple]
    address: str
    cause: str | None


def weight(path: str, make: Callable) -> Callable:
    return partial(functional, turned(path, make))


FAULTS = {
    "dense transposed": Fault(
        weight("mix/kernel", np.transpose),
        "a_net.a_mix",
        "transposed kernel: with the axes of kernel in the order (1, 0), b agrees to",
    ),
    "dense reshaped": Fault(
        weight("head/kernel", as_torch_has_it),
        "a_net.a_head",
        "transposed kernel: with kernel transposed, not reshaped",
    ),
    "rows for columns": Fault(
        weight("conv_in/kernel", lambda k: k.transpose(1, 0, 2, 3)),
        "a_net.a_conv_in",
        "transposed kernel: with the axes of kernel in the order (1, 0, 2, 3)",
    ),
    "in for out": Fault(
        weight("conv/kernel", lambda k: k.transpose(0, 1, 3, 2)),
        "a_net.a_conv",
        "transposed kernel: with the axes of kernel in the order (0, 1, 3, 2)",
    ),
    "conv reshaped": Fault(
        weight("conv_in/kernel", as_torch_has_it),
        "a_net.a_conv_in",
        "transposed kernel: with kernel transposed, not reshaped",
    ),
    "conv turned around": Fault(
        weight("conv/kernel", lambda k: k[::-1, ::-1]),
        "a_net.a_conv",
        "transposed kernel: with kernel turned around",
    ),
    "bias not loaded": Fault(
        weight("mix/bias", np.zeros_like),
        "a_net.a_mix",
        "another weight: with the other side's bias",
    ),
    "ε of the layer norm": Fault(
        partial(functional, ln=1e-5),
        "a_net.a_norm",
        "ε of a norm: with epsilon 0.001 in place of 1e-05",
    ),
    "ε of the group norm": Fault(
        partial(functional, gn=1e-6),
        "a_net.a_groups",
        "ε of a norm: with epsilon 0.001 in place of 1e-06",
    ),
    "tanh": Fault(
        partial(functional, gelu=TANH), "a_net.a_conv", "another GELU: with the exact GELU"
    ),
    "quick": Fault(
        partial(functional, gelu=lambda x: x * ops.sigmoid(1.702 * x)),
        "a_net.a_conv",
        "another GELU: with the exact GELU",
    ),
    "BGR": Fault(
        partial(functional, colours=lambda x: ops.flip(x, -1)),
        "a_net.a_conv_in",
        "swapped channels: with inputs in reverse order",
    ),
    "late": Fault(
        partial(functional, time=lambda t: t + 1),
        "a_net.a_embed",
        "shifted timestep: with inputs -1",
    ),
    "early": Fault(
        partial(functional, time=lambda t: t - 1),
        "a_net.a_embed",
        "shifted timestep: with inputs +1",
    ),
    "channels first": Fault(
        partial(functional, layout=(3, 1, 2)), "a_net.a_layout", "another layout: with its first"
    ),
    "another factor": Fault(partial(functional, scale=3.0), "a_net.a_rescale", None),
    "cosines first": Fault(
        partial(subclassed, "halves"),
        "net.waves",
        "swapped channels: with its output with its halves exchanged",
    ),
    "BGR in between": Fault(
        partial(subclassed, "caffe"), "net.conv2d", "swapped channels: with x in reverse order"
    ),
    "late in between": Fault(
        partial(subclassed, "late"), "net.dense", "shifted timestep: with t -1"
    ),
    "stretched in between": Fault(partial(subclassed, "stretched"), "net.dense", None),
}
