"""Gradients by attention on the way from none to what it is."""

import numpy as np

from phantom.attribution.case import Case
from xray.attention import CROSS

from .gradient_attention import by_attention, relevance

POINTS = 4


def integrated_gradients(case: Case) -> dict[str, np.ndarray]:
    """A·∫ ∂y(αA)/∂A dα, α from 0 to 1, by the midpoints of POINTS parts, for the y of gradient ×
    attention. Sundararajan et al., arXiv 1703.01365, eq. 1; by attention, Hao et al., arXiv
    2004.11207, eq. 3."""
    probs = case.look(CROSS)
    arguments = case.latents, case.times, case.told(None), [case.noise("")]
    total = {at: np.zeros_like(layer) for at, layer in probs.items()}
    for part in (np.arange(POINTS) + 0.5) / POINTS:
        offsets = {at: (part - 1) * layer for at, layer in probs.items()}
        for at, gradient in by_attention(case.sd)(*arguments, offsets).gradients.items():
            total[at] += gradient / POINTS
    return relevance(case, probs, total)
