"""Whole h5 files with something odd in them: one line says what."""

import os
import re

import h5py
import numpy as np
import pytest

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.h5 import open_weights
from tests.stable_diffusion_tf.checkpoint.test_h5 import write_keras2

ODD = {  # what may be wrong within a file that is a whole h5 → how, and what is said of it
    "layers an array": (lambda f: f.create_dataset("layers", (3,)), "its layers is no group"),
    "no model_weights": (lambda f: f.create_dataset("model_weights", (3,)), "is no group"),
    "names empty": (
        lambda f: f.attrs.create("layer_names", h5py.Empty("S9")),
        "layer_names are no names",
    ),
    "names a number": (lambda f: f.attrs.create("layer_names", 7), "its layer_names are no names"),
    "names no text": (lambda f: f.attrs.create("layer_names", [b"\xff"]), "is no whole h5 file"),
    "a layer an array": (lambda f: put(f, "a", np.zeros(3)), "its a is no group"),
    "weights a number": (
        lambda f: f["a"].attrs.create("weight_names", 3.5),
        "weight_names are no names",
    ),
    "a weight a group": (lambda f: put(f, "a/w", None), "its w is no array"),
    "a weight empty": (lambda f: put(f, "a/w", h5py.Empty("f4")), "its w is no array"),
    "a weight of text": (lambda f: put(f, "a/w", [b"text"]), "its w holds no numbers"),
    "a weight elsewhere": (
        lambda f: put(f, "a/w", h5py.ExternalLink("pipe", "w")),
        "its a/w lies in another file",
    ),
    "a weight of raw bytes": (
        lambda f: (f.__delitem__("a/w"), f.create_dataset("a/w", (3,), external="pipe")),
        "its w lies in another file",
    ),
    "a weight in circles": (lambda f: put(f, "a/w", h5py.SoftLink("/a/w")), "is no whole h5"),
}


def put(file: h5py.File, path: str, value: object) -> None:
    """Something in the place of what is there; None puts a group."""
    del file[path]
    if value is None:
        file.create_group(path)
    else:
        file[path] = value


@pytest.mark.parametrize("name", ODD)
def test_an_odd_thing_within_a_file_is_named(tmp_path, name):
    change, said = ODD[name]
    path = tmp_path / "decoder.h5"
    write_keras2(path, {"a": {"w": np.zeros((77, 8), np.float32)}})
    open_weights(path)
    with h5py.File(path, "a") as file:
        change(file)
    os.mkfifo(tmp_path / "pipe")  # which would be waited for
    with pytest.raises(UsageError, match=f"^{re.escape(str(path))} is no whole h5 file") as error:
        open_weights(path)
    assert said in str(error.value) and "\n" not in str(error.value)
