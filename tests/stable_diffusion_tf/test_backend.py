"""Which library computes: every wrong answer is one line with the line to type."""

import json
import os
import sys

import keras
import numpy as np
import pytest

from stable_diffusion_tf import UsageError, backend, layers, precisions


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder of Keras, before Keras is imported."""
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


def test_tensorflow_is_taken_where_nobody_says_another(home, monkeypatch):
    assert backend.chosen_backend() == "tensorflow"
    (home / "keras.json").write_text('{"backend": "jax"}')
    monkeypatch.setattr(backend, "find_spec", lambda name: name)
    assert backend.chosen_backend() == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert backend.chosen_backend() == "tensorflow"


@pytest.mark.parametrize("name", ["nonsense", "TensorFlow", "numpy", "mxnet", "theano"])
@pytest.mark.parametrize("place", ["environment", "keras.json"])
def test_no_such_backend_is_one_line(name, place, home, monkeypatch):
    if place == "environment":
        monkeypatch.setenv("KERAS_BACKEND", name)
    else:
        (home / "keras.json").write_text(json.dumps({"backend": name}))
    with pytest.raises(UsageError, match=f"no backend '{name}'.*put KERAS_BACKEND=tensorflow"):
        backend.chosen_backend()


@pytest.mark.parametrize(
    ("name", "wanted"), [("jax", "jax"), ("torch", "torch"), ("openvino", "openvino scipy")]
)
def test_a_backend_that_is_not_installed_is_one_line(name, wanted, home, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", name)
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"{name} is not installed; pip install {wanted}, or put"):
        backend.chosen_backend()


def test_a_backend_is_chosen_before_keras_is_there(home, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    backend.choose_backend(None)
    assert os.environ["KERAS_BACKEND"] == "torch"
    backend.choose_backend("tensorflow")
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_keras_does_not_change_its_backend():
    backend.choose_backend(keras.config.backend())
    with pytest.raises(UsageError, match="in this process already; start another for jax"):
        backend.choose_backend("jax")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "holds no settings of Keras; remove it"),
        ("7", "holds no settings of Keras; remove it"),
        ('{"image_data_format": "sideways"}', "takes no image_data_format of 'sideways'"),
        ('{"floatx": "bfloat16"}', "takes no floatx of 'bfloat16'; remove the line"),
        ('{"epsilon": 1}', "takes no epsilon of 1"),
    ],
)
def test_settings_that_keras_trips_over_are_one_line(text, told, home):
    (home / "keras.json").write_text(text)
    with pytest.raises(UsageError, match=told):
        backend.chosen_backend()


def test_settings_that_keras_forgives_are_forgiven(home):
    (home / "keras.json").write_text("{broken")
    assert backend.chosen_backend() == "tensorflow"


def test_keras_has_the_last_word_once_it_is_there(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    assert backend.chosen_backend() == keras.config.backend()


@pytest.mark.parametrize("setting", ["image_data_format", "floatx"])
def test_the_users_settings_of_keras_change_no_layer(setting):
    """Channels last and float32 are told to each layer."""
    change, back = {
        "image_data_format": (
            lambda: keras.config.set_image_data_format("channels_first"),
            lambda: keras.config.set_image_data_format("channels_last"),
        ),
        "floatx": (
            lambda: keras.config.set_floatx("float16"),
            lambda: keras.config.set_floatx("float32"),
        ),
    }[setting]
    x = np.random.default_rng(0).normal(size=(1, 8, 6, 4)).astype(np.float32)

    def compute() -> np.ndarray:
        keras.utils.set_random_seed(0)
        with precisions.precision("float32"):
            down = layers.Downsample(4, ((1, 1), (1, 1)), name="down")
            up = layers.Upsample(4, name="up")
            block = layers.ResnetBlock(8, 4, 1e-5, name="block")
            return keras.ops.convert_to_numpy(block(up(down(x))))

    usual = compute()
    try:
        change()
        other = compute()
    finally:
        back()
    assert other.dtype == np.float32
    np.testing.assert_array_equal(usual, other)
