"""`heat_maps`: a prompt's words on the picture that is drawn from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.attention.attention import (
    DEFAULT,
    INSIDE,
    SPECIAL,
    pooling_for,
    probe,
    step_maps,
    word_maps,
)
from xray.attention.pooling import Pooling
from xray.attention.sheets import heat_sheet
from xray.measure import between_extremes, iou_at
from xray.viewer.page import framed, quantised, write_page

from .cache import run
from .html import data_uri
from .page import BITS, FEW, no_finer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stable_diffusion_tf import StableDiffusion

FINE = 128  # places a side, at most, of a pooled map in a notebook; of a step's, FEW
HEIGHT = 560  # pixels, of a frame in a notebook: all of it is seen from 1000 pixels of width on


def heat_maps(
    sd: "StableDiffusion", prompt: str, pooling: Pooling = DEFAULT, **options: Any
) -> "HeatMaps":
    """Draw a picture and pool what its places attended to: word → HeatMap, in the order of the
    prompt, and last '<start>', '<end>' and '<padding>'. `.steps[3]` are the maps of step 3, word →
    (rows, columns). A notebook shows them over the picture, under the pointer.

    After DAAM (Tang et al., arXiv 2210.04885), with our pooling; `attention.DAAM` is theirs. That a
    place attends to a word does not say that the word made it: see the README. options: those of
    `xray.run`, as steps=25, seed=0.
    """
    image, cache = run(sd, prompt, probe(), **options)
    words, how = sd.tokenizer.words(prompt), pooling_for(sd, pooling)
    found = word_maps(cache, words, how, image.shape[:2])
    maps = {word: HeatMap(word, heat, image) for word, heat in found.items()}
    times = [part.step.t for part in cache.parts if part.step]
    return HeatMaps(image, maps, step_maps(cache, words, how), times)


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

    def _repr_html_(self) -> str:
        return as_html(self, payload(self.image, {self.word: self}))

    def _repr_png_(self) -> bytes:
        return as_png(self.figure())


class HeatMaps(dict):
    """Word → HeatMap, and the picture, `image`, (H, W, 3) uint8. steps: of each step word → its
    map, (rows, columns), as fine as attention; times: the steps' timesteps."""

    def __init__(
        self,
        image: np.ndarray,
        maps: Mapping[str, HeatMap],
        steps: Sequence[Mapping[str, np.ndarray]] = (),
        times: Sequence[int] = (),
    ):
        super().__init__(maps)
        self.image, self.steps, self.times = image, [*steps], [*times]

    def figure(self) -> "Figure":
        """The picture and each word's map over it."""
        return sheet_of(self.image, self)

    def __repr__(self) -> str:
        return f"<HeatMaps of {', '.join(self)}>"

    def _repr_html_(self) -> str:
        return as_html(self, payload(self.image, self, self.steps, self.times))

    def _repr_png_(self) -> bytes:
        return as_png(self.figure())


def as_html(maps: HeatMap | HeatMaps, told: Mapping[str, Any]) -> str:
    """As a notebook shows it: the line, and below it the page, in a frame of its own."""
    line = " ".join(repr(maps)[1:-1].split())
    return f"<div>{escape(line)}</div>" + framed(write_page("words", told), HEIGHT)


def payload(
    image: np.ndarray,
    maps: Mapping[str, HeatMap],
    steps: Sequence[Mapping[str, np.ndarray]] = (),
    times: Sequence[int] = (),
) -> dict[str, Any]:
    """All that the page knows: the words, the picture, and the maps, pooled and of each step."""
    told = {
        "tokens": [{"text": word, "places": [], "special": word in SPECIAL} for word in maps],
        "picture": data_uri(image),
        "size": [*image.shape[:2]],
        "steps": [{"index": i, "t": t} for i, t in enumerate(times)],
        "pooled": quantised(
            np.stack([no_finer(heat.array, FINE) for heat in maps.values()]), 1, BITS["maps"]
        ),
    }
    if steps:
        each = np.stack([[no_finer(step[word], FEW) for word in maps] for step in steps])
        told["now"] = quantised(each, 2, BITS["maps"])
    return told


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
