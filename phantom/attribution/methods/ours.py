"""Our pooling: what a word gets, held against what the start token gets."""

import numpy as np

from phantom.attribution.case import Case
from xray.attention import DEFAULT

from .daam import pooled


def ours(case: Case) -> dict[str, np.ndarray]:
    """`xray.attention.DEFAULT`, as `xray.heat_maps` pools."""
    found = pooled(case, DEFAULT)
    return {word: found[word] for word in case.words}
