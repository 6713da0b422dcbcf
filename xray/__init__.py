"""The instrument that looks inside the model. It imports the model, never the other way round.

    import xray
    image, cache = xray.run(sd, "a cat on a red background", read="unet.mid_block")

Each name is loaded when it is first used, so that importing this starts no Keras.
"""

from importlib import import_module
from typing import Any

import stable_diffusion_tf  # noqa: F401  it turns oneDNN on, before Keras is imported here

DOOR = {  # what is offered → the module that holds it
    "Cache": "cache",
    "DebugTensor": "tensor_debug",
    "Edit": "rules",
    "Feed": "rules",
    "Film": "film",
    "HeatMap": "heat",
    "Mean": "rules",
    "PerStep": "rules",
    "Probe": "rules",
    "capture": "probe",
    "compare_models": "ports",
    "first_nan": "nonfinite",
    "heat_maps": "heat",
    "instrument": "instrumented",
    "run": "cache",
    "taps": "survey",
}
__all__ = sorted(DOOR)


def __getattr__(name: str) -> Any:
    if name not in DOOR:
        raise AttributeError(f"xray has no {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"xray.{DOOR[name]}"), name)


def __dir__() -> list[str]:
    return __all__
