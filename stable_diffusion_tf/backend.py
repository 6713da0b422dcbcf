"""Which library Keras is to compute with, asked before Keras is imported: what it says of a wrong
answer is a traceback of its own."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from .errors import UsageError

BACKENDS = ("tensorflow", "jax", "torch")
TYPE = "put KERAS_BACKEND=tensorflow in front of the command"
DATA_FORMATS = ("channels_last", "channels_first")  # ours is told to each layer
FLOATS = ("float16", "float32", "float64")  # likewise
FIELDS = {  # of keras.json → what it may be
    "image_data_format": lambda value: value in DATA_FORMATS,
    "floatx": lambda value: value in FLOATS,
    "epsilon": lambda value: isinstance(value, float),
}


def chosen_backend() -> str:
    """'tensorflow', 'jax' or 'torch', as KERAS_BACKEND or the user's keras.json says; TensorFlow
    where neither does. Raises UsageError where it is none of them, or not installed."""
    if keras := sys.modules.get("keras"):
        return keras.config.backend()
    told = read_settings(settings_file()).get("backend", "tensorflow")
    name = os.environ.get("KERAS_BACKEND") or told
    if name not in BACKENDS:
        raise UsageError(
            f"no backend {name!r}, which KERAS_BACKEND or {settings_file()} names; known are "
            f"{', '.join(BACKENDS)}: {TYPE}"
        )
    if find_spec(name) is None:
        raise UsageError(f"the backend {name} is not installed; pip install {name}, or {TYPE}")
    return name


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
