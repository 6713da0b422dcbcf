"""Methods of attribution: each a function of a `Case` that gives word → map (rows, columns).

Each stands in a file that is named after it. To add one, write the function and name it here; or
score it without: `phantom.attribution.score(method)`.
"""

from collections.abc import Callable, Mapping

import numpy as np

from phantom.attribution.case import Case

from .absent_word import absent_word
from .concept_attention import concept_attention
from .cross_attention import cross_attention
from .daam import daam
from .gradient_attention import gradient_attention
from .integrated_gradients import integrated_gradients
from .noise_difference import noise_difference
from .ours import ours
from .picture_difference import picture_difference
from .propagated import propagated

Method = Callable[[Case], Mapping[str, np.ndarray]]

METHODS: dict[str, Method] = {
    "raw cross-attention": cross_attention,
    "DAAM": daam,
    "ours": ours,
    "cross- by self-attention": propagated,
    "predicted noise without the word": noise_difference,
    "picture without the word": picture_difference,
    "output against value (ConceptAttention)": concept_attention,
    "gradient × attention": gradient_attention,
    "integrated gradients": integrated_gradients,
    "the word's keys, not in the prompt": absent_word,
}
