"""Where the predicted noise is another without the word."""

import numpy as np

from phantom.attribution.case import Case


def noise_difference(case: Case) -> dict[str, np.ndarray]:
    """The distance over channels, the mean over timesteps. As DiffEdit has it between two prompts:
    Couairon et al., arXiv 2210.11427, section 3.2."""
    own = case.noise()
    others = {word: case.noise(case.without(word)) for word in case.words}
    return {word: np.linalg.norm(own - other, axis=-1).mean(0) for word, other in others.items()}
