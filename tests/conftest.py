"""What holds for every test: the libraries keep quiet, and none of them goes online."""

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("XRAY_GRAPHS", "off")  # what OpenVINO compiles, kept in the user's folder

import stable_diffusion_tf  # noqa: F401  it turns oneDNN on, before a test imports Keras

LONG = ("test_readme", "test_probe", "test_scripts", "test_instrumented", "test_precision")


def pytest_collection_modifyitems(items):
    """Files that take long come first, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session")
def phantom():
    """One phantom for all tests of a process: what takes the time is to compile it."""
    from xray import script  # here, so that tests without a model start at once

    return script.load_model("phantom")


@pytest.fixture(scope="session")
def sd(phantom):
    return phantom


@pytest.fixture
def loaded(phantom, monkeypatch) -> None:
    """Who loads the phantom gets the one that is compiled already."""
    from stable_diffusion_tf import StableDiffusion

    load = StableDiffusion.load

    def lend(name, precision="float32", size=None):
        asked = name, precision, size
        return phantom if asked == ("phantom", "float32", None) else load(*asked)

    monkeypatch.setattr(StableDiffusion, "load", lend)
