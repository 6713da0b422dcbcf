"""Stable Diffusion 1.x in Keras 3. `StableDiffusion` is imported when it is first asked for, so
that a script can say --help, or what is wrong, without waiting for TensorFlow."""

import os

from .errors import UsageError

# The one thing that happens on import: TensorFlow reads this once, when it is first imported, and
# on CPUs without AVX-512 it would leave oneDNN off, which takes half as long again for a UNet call.
# What the user has set stays.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__all__ = ["StableDiffusion", "Step", "UsageError"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .backend import chosen_backend

    chosen_backend()  # what is wrong with it is said before Keras trips over it
    from . import pipeline

    return getattr(pipeline, name)
