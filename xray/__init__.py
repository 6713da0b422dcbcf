"""The instrument that looks inside the model. It imports the model, never the other way round.

import xray
image, cache = xray.run(sd, "a cat on a red background", read="unet.mid_block")
"""

import stable_diffusion_tf  # noqa: F401  it turns oneDNN on, before Keras is imported here

from .door import door

__getattr__, __dir__, __all__ = door(
    __name__,
    {
        "compare": "compare_models first_nan",
        "film": "Cache Film HeatMap heat_maps run",
        "probe": "Edit Feed Mean PerStep Probe capture gradient instrument taps",
        "tensor_debug": "DebugTensor",
    },
)
