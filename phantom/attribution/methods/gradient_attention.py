"""Attention times its gradient: where attention to the word matters for what the prompt does."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from phantom.attribution.case import Case
from xray.attention import CROSS

from .grids import averaged, named, of_words

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion


def gradient_attention(case: Case) -> dict[str, np.ndarray]:
    """The positive part of A·∂y/∂A, the mean over heads, layers and timesteps (Chefer et al., arXiv
    2103.15679, eq. 5); y is half the squared distance that the prompt moves the predicted noise."""
    _, probs, gradients = by_attention(case.sd)(
        case.latents, case.times, case.told(None), [case.noise("")]
    )
    return relevance(case, probs, gradients)


def relevance(
    case: Case, probs: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Maps of what attention, (n, heads, positions, 77) of each layer, does by its gradient."""
    layers = (np.maximum(probs[at] * gradients[at], 0).mean((0, 1)) for at in probs)
    return named(case.words, averaged(of_words(layer, case.words) for layer in layers))


@lru_cache(maxsize=4)
def by_attention(sd: "StableDiffusion") -> Any:
    from xray.probe.gradients import gradient

    return gradient(sd, of=lambda noise, without: (noise - without) ** 2 / 2, at=CROSS)
