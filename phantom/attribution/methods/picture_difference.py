"""Where the picture is another when it is drawn without the word, from the same noise."""

import numpy as np

from phantom.attribution.case import Case


def picture_difference(case: Case) -> dict[str, np.ndarray]:
    """The mean absolute difference over colours: the word's effect itself, which costs a run for
    each word."""
    prompts = [case.prompt, *map(case.without, case.words)]
    own, *others = case.redraw(prompts).astype(float)
    return {
        word: np.abs(own - other).mean(-1) for word, other in zip(case.words, others, strict=True)
    }
