"""The small model with known insides: its world, its training, its judge."""

import stable_diffusion_tf  # noqa: F401  it turns oneDNN on, before Keras is imported here
