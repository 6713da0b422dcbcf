"""Small Keras models of every kind, each with what its layers must give out, by plain arithmetic.

KERAS_BACKEND=jax python -m tests.xray.toys answers.npz
"""

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from xray.probe import Edit, Probe, capture

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
Toy = tuple[keras.Model, Any, dict[str, np.ndarray]]


def times(name: str, factor: float, **options: Any) -> layers.Layer:
    """x → factor · x, three wide."""
    start = keras.initializers.Identity(factor)
    return layers.Dense(3, use_bias=False, kernel_initializer=start, name=name, **options)


def functional() -> Toy:
    x = keras.Input((3,), name="x")
    y = times("double", 2)(x)
    z = layers.Add(name="sum")([y, times("triple", 3)(y)])
    model = keras.Model(x, z, name="toy")
    return model, X, {"toy.double": 2 * X, "toy.triple": 6 * X, "toy.sum": 8 * X, "toy": 8 * X}


def sequential() -> Toy:
    model = keras.Sequential([keras.Input((3,)), times("a", 2), times("b", 5)], name="toy")
    return model, X, {"toy.a": 2 * X, "toy.b": 10 * X, "toy": 10 * X}


def nested() -> Toy:
    inner = keras.Sequential([keras.Input((3,)), times("a", 2)], name="inner")
    x = keras.Input((3,))
    model = keras.Model(x, times("b", 3)(inner(x)), name="outer")
    return model, X, {"outer.inner.a": 2 * X, "outer.inner": 2 * X, "outer.b": 6 * X}


def shared() -> Toy:
    """One layer, and one model, that are called twice."""
    block = keras.Sequential([keras.Input((3,)), times("a", 2)], name="block")
    again, x = times("again", 3), keras.Input((3,))
    model = keras.Model(x, again(block(again(block(x)))), name="toy")
    return (
        model,
        X,
        {
            "toy.block": 2 * X,
            "toy.block.a": 2 * X,
            "toy.again": 6 * X,
            "toy.block#2": 12 * X,
            "toy.block#2.a": 12 * X,
            "toy.again#2": 36 * X,
        },
    )


class Subclassed(keras.Model):
    """A residual model with its layers in a list, one output in a dict, one in a tuple."""

    def __init__(self):
        super().__init__(name="toy")
        self.steps = [times("first", 2), times("second", 3)]
        self.split = Split(name="split")

    def call(self, x, scale=None):
        for step in self.steps:
            x = x + step(x)
        small, large = self.split(x, scale)
        return {"small": small, "large": large}


class Split(layers.Layer):
    def call(self, x, scale):
        return x * scale, (x / scale)


def subclassed() -> Toy:
    scale = np.float32([[2], [4]])
    expected = {"toy.first": 2 * X, "toy.second": 9 * X}
    expected |= {"toy.split:0": 12 * X * scale, "toy.split:1": 12 * X / scale}
    expected |= {"toy:small": 12 * X * scale, "toy:large": 12 * X / scale}
    return Subclassed(), (X, scale), expected


def many_inputs() -> Toy:
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    y = times("double", 2)(a) * b  # an operation between layers has its place too
    model = keras.Model({"a": a, "b": b}, times("triple", 3)(y), name="toy")
    given = {"a": X, "b": X + 1}
    product = 2 * X * (X + 1)
    return model, given, {"toy.double": 2 * X, "toy.multiply": product, "toy.triple": 3 * product}


TOYS: dict[str, Callable[[], Toy]] = {
    made.__name__: made
    for made in (functional, sequential, nested, shared, subclassed, many_inputs)
}


def inputs_of_layers() -> Toy:
    model, given, _ = subclassed()
    at_split = 12 * X
    return (
        model,
        given,
        {
            "toy.first:in": X,
            "toy.second:in": 3 * X,
            "toy.split:in.x": at_split,
            "toy.split:in.scale": given[1],
        },
    )


def halved() -> tuple[Toy, list[Edit], np.ndarray]:
    """An edit in the middle, of the first call only, and where the model then ends."""
    model, given, _ = shared()
    return (model, given, {}), [Edit("toy.again#2", lambda x: x / 2)], 18 * X


def answers() -> dict[str, np.ndarray]:
    """Everything that the toys' layers gave out on the backend of this process."""
    found = {}
    for name, toy in TOYS.items():
        keras.backend.clear_session()
        model, given, expected = toy()
        _, reads = capture(model, given, [Probe(list(expected))])
        found |= {f"{name}/{address}": reads[address] for address in expected}
    model, given, expected = inputs_of_layers()
    found |= {
        f"inputs/{k}": v for k, v in capture(model, given, [Probe(list(expected))])[1].items()
    }
    (model, given, _), edits, _ = halved()
    return found | {"edited": capture(model, given, edits=edits)[0]}


def expected() -> dict[str, np.ndarray]:
    """The same by arithmetic."""
    found = {f"{name}/{k}": v for name, toy in TOYS.items() for k, v in toy()[2].items()}
    found |= {f"inputs/{k}": v for k, v in inputs_of_layers()[2].items()}
    return found | {"edited": halved()[2]}


if __name__ == "__main__":
    np.savez(sys.argv[1], **answers())
