"""What a map must do better than: maps that know nothing of their word, and models that know
nothing. And the ceiling: the mask itself, as coarse as attention is."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from phantom.world import BACKGROUNDS, SIDE
from xray.attention import DAAM
from xray.measure import resize_by_area

from .case import Case
from .examples import Example
from .methods import Method
from .methods.daam import pooled
from .methods.ours import ours

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

RANDOM = {  # from the output on, ever more of the UNet, as Adebayo et al., arXiv 1810.03292
    "ours, up blocks randomised": r"up_blocks",
    "ours, middle too": r"up_blocks|mid_block",
    "ours, all blocks": r"up_blocks|mid_block|down_blocks",
}
CEILINGS = {"the mask itself at 16²": 16, "the mask itself at 8²": 8}


def start_token(case: Case) -> dict[str, np.ndarray]:
    """Where the start token gets least: the same for every word."""
    start = -pooled(case, DAAM)["<start>"]
    return dict.fromkeys(case.words, start)


def another_word(case: Case) -> dict[str, np.ndarray]:
    """The map of the other thing of the prompt; for the background, that of its first word."""
    found, names = ours(case), [*case.words]
    things = [name for name in names if name not in BACKGROUNDS] or names
    turned = dict(zip(things, things[1:] + things[:1], strict=True))
    return {name: found[turned.get(name, things[0])] for name in names}


def centred_box(known: Sequence[Example]) -> Method:
    """A square in the middle, as large as the mean thing, or background."""
    sizes = {is_ground: [] for is_ground in (False, True)}
    for one in known:
        for word, mask in one.masks.items():
            sizes[word in BACKGROUNDS].append(mask.mean())

    def method(case: Case) -> dict[str, np.ndarray]:
        return {word: box(float(np.mean(sizes[word in BACKGROUNDS]))) for word in case.words}

    return method


def box(part: float) -> np.ndarray:
    """A square in the middle that takes this part of the picture, (64, 64), 0 or 1."""
    away = np.abs(np.arange(SIDE) + 0.5 - SIDE / 2)
    inside = away <= np.sqrt(part) * SIDE / 2
    return np.outer(inside, inside).astype(float)


def on_randomised(sd: "StableDiffusion", seed: int = 0) -> dict[str, Method]:
    """Our maps, of the model with the weights of some of its blocks shuffled."""
    return {
        name: on(randomised(sd, pattern, np.random.default_rng(seed)))
        for name, pattern in RANDOM.items()
    }


def on(other: "StableDiffusion") -> Method:
    return lambda case: ours(replace(case, sd=other, seen={}))


def randomised(sd: "StableDiffusion", pattern: str, rng: np.random.Generator) -> "StableDiffusion":
    """The model once more, each weight of the UNet's layers that match shuffled in itself."""
    from keras import ops

    made = type(sd)(sd.checkpoint)
    for variable in made.network("unet").trainable_variables:
        if re.search(pattern, variable.path.replace("-", ".")):
            values = ops.convert_to_numpy(variable)
            variable.assign(rng.permutation(values.ravel()).reshape(values.shape))
    return made


def ceiling(side: int) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Masks → maps: the share of each cell of a grid that lies in the mask."""
    return lambda known: {
        word: resize_by_area(mask.astype(float), side, side) for word, mask in known.items()
    }
