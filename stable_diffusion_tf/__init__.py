"""Stable Diffusion 1.x in Keras 3."""

from .errors import UsageError
from .pipeline import StableDiffusion, Step

__all__ = ["StableDiffusion", "Step", "UsageError"]
