"""Which library Keras is to compute with, asked before Keras is imported: what it says of a wrong
answer is a traceback of its own."""

import json
import os
import sys
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from .errors import UsageError

BACKENDS = ("tensorflow", "jax", "torch", "openvino")
INSTALL = {"openvino": "openvino scipy"}  # where it is not the backend's own name
TYPE = "put KERAS_BACKEND=tensorflow in front of the command"
TESTED = {"keras": "3.15", "openvino": "2026.4"}  # for the backend openvino
DATA_FORMATS = ("channels_last", "channels_first")  # ours is told to each layer
FLOATS = ("float16", "float32", "float64")  # likewise
FIELDS = {  # of keras.json → what it may be
    "image_data_format": lambda value: value in DATA_FORMATS,
    "floatx": lambda value: value in FLOATS,
    "epsilon": lambda value: isinstance(value, float),
}


def chosen_backend() -> str:
    """One of BACKENDS, as KERAS_BACKEND or the user's keras.json says; TensorFlow where neither
    does. Raises UsageError where it is none of them, or not installed."""
    if keras := sys.modules.get("keras"):
        return keras.config.backend()
    told = read_settings(settings_file()).get("backend", "tensorflow")
    name = os.environ.get("KERAS_BACKEND") or told
    if name not in BACKENDS:
        raise UsageError(
            f"no backend {name!r}, which KERAS_BACKEND or {settings_file()} names; known are "
            f"{', '.join(BACKENDS)}: {TYPE}"
        )
    needed = INSTALL.get(name, name)
    if not all(map(find_spec, needed.split())):
        raise UsageError(f"the backend {name} is not installed; pip install {needed}, or {TYPE}")
    return name


def choose_backend(name: str | None) -> None:
    """Have Keras compute with this one; None leaves the choice as it is. Raises UsageError where
    Keras runs on another one already: it has one for the life of a process."""
    if name is None:
        return
    keras = sys.modules.get("keras")
    if keras and keras.config.backend() != name:
        raise UsageError(
            f"Keras computes with {keras.config.backend()} in this process already; "
            f"start another for {name}"
        )
    os.environ["KERAS_BACKEND"] = name


def warn_of_untested(versions: Mapping[str, str]) -> None:
    """Keras' OpenVINO backend is young, and what is taken from it has private names."""
    for library, version in versions.items():
        if not version.startswith(f"{TESTED[library]}."):
            told = f"{library} {version} is not tested with the backend openvino"
            warnings.warn(f"{told}; {TESTED[library]} is", stacklevel=2)


def settings_file() -> Path:
    """Where Keras looks for the user's settings."""
    home = Path.home() if os.access(os.path.expanduser("~"), os.W_OK) else Path("/tmp")
    return Path(os.environ.get("KERAS_HOME", home / ".keras")).expanduser() / "keras.json"


def read_settings(path: Path) -> dict:
    """The user's settings; none where the file is missing or no JSON, as Keras takes it. Raises
    UsageError where Keras would not go on."""
    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text())
    except ValueError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; move it away") from None
    if not isinstance(settings, dict):
        raise UsageError(f"{path} holds no settings of Keras; remove it, and Keras writes it anew")
    for name, allows in FIELDS.items():
        if name in settings and not allows(settings[name]):
            raise UsageError(
                f"{path}: Keras takes no {name} of {settings[name]!r}; remove the line"
            )
    return settings
