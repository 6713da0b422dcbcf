"""`heat_maps`: a prompt's words on the picture that is drawn from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.attention.attention import DEFAULT, INSIDE, SPECIAL, pooling_for, probe, word_maps
from xray.attention.pooling import Pooling
from xray.attention.sheets import heat_sheet
from xray.measure import between_extremes, iou_at

from .cache import run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stable_diffusion_tf import StableDiffusion


def heat_maps(
    sd: "StableDiffusion", prompt: str, pooling: Pooling = DEFAULT, **options: Any
) -> "HeatMaps":
    """Draw a picture and pool what its places attended to: word → HeatMap, in the order of the
    prompt, and last '<start>', '<end>' and '<padding>'.

    After DAAM (Tang et al., arXiv 2210.04885), with our pooling; `attention.DAAM` is theirs. That a
    place attends to a word does not say that the word made it: see the README. options: those of
    `xray.run`, as steps=25, seed=0.
    """
    image, cache = run(sd, prompt, probe(), **options)
    found = word_maps(cache, sd.tokenizer.words(prompt), pooling_for(sd, pooling), image.shape[:2])
    return HeatMaps(image, {word: HeatMap(word, heat, image) for word, heat in found.items()})


@dataclass(frozen=True, eq=False, repr=False)
class HeatMap:
    """Where a picture attends to a word. array: (H, W) float64; image: (H, W, 3) uint8."""

    word: str
    array: np.ndarray
    image: np.ndarray

    def inside(self, share: float = INSIDE) -> np.ndarray:
        """The pixels that reach a share of the map's range, (H, W) bool."""
        return between_extremes(self.array) >= share

    def iou(self, mask: np.ndarray, share: float = INSIDE) -> float:
        """Intersection over union of `inside(share)` with a mask, (H, W) bool."""
        return float(iou_at(self.array, mask, share))

    def figure(self) -> "Figure":
        return sheet_of(self.image, {self.word: self})

    def __repr__(self) -> str:
        return f"<HeatMap {self.word!r}: {self.inside().mean():.0%} of the picture at {INSIDE:g}>"

    def _repr_png_(self) -> bytes:
        return as_png(self.figure())


class HeatMaps(dict):
    """Word → HeatMap, and the picture, `image`, (H, W, 3) uint8."""

    def __init__(self, image: np.ndarray, maps: Mapping[str, HeatMap]):
        super().__init__(maps)
        self.image = image

    def figure(self) -> "Figure":
        """The picture and each word's map over it."""
        return sheet_of(self.image, self)

    def __repr__(self) -> str:
        return f"<HeatMaps of {', '.join(self)}>"

    def _repr_png_(self) -> bytes:
        return as_png(self.figure())


def sheet_of(image: np.ndarray, maps: Mapping[str, HeatMap]) -> "Figure":
    heats = {word: heat.array for word, heat in maps.items()}
    labels = {
        word: "" if word in SPECIAL else f"covers {heat.inside().mean():.0%} of the picture"
        for word, heat in maps.items()
    }
    title = f"cross-attention to {', '.join(maps)}"
    return heat_sheet(image / 127.5 - 1, heats, INSIDE, title, labels)


def as_png(figure: "Figure") -> bytes:
    from io import BytesIO

    made = BytesIO()
    figure.savefig(made, format="png", dpi=110)
    return made.getvalue()
