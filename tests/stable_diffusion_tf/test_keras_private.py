"""What is taken from Keras under private names does what we believe; and nothing else is taken.
`make keras` runs this with the lowest and the highest Keras allowed."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest

from stable_diffusion_tf.keras_private import all_layers, give_value, skeleton

ROOT = Path(__file__).resolve().parents[2]
OURS = {"self", "cls"}
NOT_PRIVATE = {"_asdict", "_replace", "_fields", "_exit"}  # of named tuples; of os


def network() -> keras.Model:
    x = keras.Input((4,))
    inner = keras.Sequential([keras.layers.Dense(3, name="first")], name="inner")
    return keras.Model(x, keras.layers.Dense(2, name="second")(inner(x)))


def test_a_skeleton_has_no_values_until_they_are_given():
    made = skeleton(network)
    assert [tuple(v.shape) for v in made.variables] == [(4, 3), (3,), (3, 2), (2,)]
    assert all(v._value is None for v in made.variables)
    assert keras.ops.shape(made(keras.KerasTensor((5, 4)))) == (5, 2)
    drawn = [
        np.random.default_rng(i).standard_normal(v.shape) for i, v in enumerate(made.variables)
    ]
    for variable, value in zip(made.variables, drawn, strict=True):
        give_value(variable, lambda value=value: keras.ops.convert_to_tensor(value, "float32"))
    x = np.ones((1, 4), np.float32)
    a, b, c, d = drawn
    np.testing.assert_allclose(made(x), (x @ a + b) @ c + d, rtol=1e-5)


def test_nothing_of_a_skeleton_is_left_behind():
    skeleton(network)
    with keras.StatelessScope():
        pass
    assert keras.layers.Dense(2, name="later")(np.ones((1, 3), np.float32)).shape == (1, 2)
    with pytest.raises(ZeroDivisionError):
        skeleton(lambda: 1 / 0)
    assert keras.layers.Dense(2)(np.ones((1, 3), np.float32)).shape == (1, 2)


def test_all_layers_are_found_itself_first():
    made = network()
    names = [layer.name for layer in all_layers(made)]
    assert names[0] == made.name and {"inner", "first", "second"} <= {*names}


def private_names(path: Path) -> list[str]:
    """The private attributes of other objects that a file takes, and the private modules."""
    tree = ast.walk(ast.parse(path.read_text("utf-8")))
    taken = []
    for node in tree:
        if isinstance(node, ast.ImportFrom) and ".src" in (node.module or ""):
            taken.append(node.module)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") not in OURS:
            taken += [node.attr] if node.attr.startswith("_") and node.attr[1] != "_" else []
    return [name for name in taken if name not in NOT_PRIVATE]


def test_no_other_file_takes_a_private_name():
    found = {
        path.name: private_names(path)
        for package in ("stable_diffusion_tf", "xray", "phantom", "experiments", "weights")
        for path in (ROOT / package).rglob("*.py")
    }
    assert found.pop("keras_private.py")
    assert {name: names for name, names in found.items() if names} == {}
