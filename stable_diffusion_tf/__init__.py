"""Stable Diffusion 1.x in Keras 3. `StableDiffusion` is imported when it is first asked for, so
that a script can say --help, or what is wrong, without waiting for TensorFlow."""

from .errors import UsageError

__all__ = ["StableDiffusion", "Step", "UsageError"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pipeline

    return getattr(pipeline, name)
