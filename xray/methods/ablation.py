"""Zero ablation: parts of the UNet set to zero, one at a time, all by one compiled function."""

import operator
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.progress import progress_bar

from .drawing import draw, parts_that_fit

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.probe.addresses import TapInfo

BLOCKS = {  # what is set to zero → what it is
    "unet.*.hidden": "residual block",
    "unet.*.attn1": "self-attention",
    "unet.*.attn2": "cross-attention",
    "unet.*.ff": "feed-forward",
    "unet.*.skips.?": "skip",
}
HEADS = "unet.*.attn2.probs"
PLACE = re.compile(r"unet\.(down|mid|up)_blocks?(?:\.(\d+))?\.(?:resnets|attentions|skips)\.(\d+)")


class Ablation(NamedTuple):
    """A value that is set to zero: where it is, what it is, and which head alone, if one."""

    address: str
    kind: str
    head: int | None = None

    @property
    def place(self) -> str:
        """'down 0.1': the second block of the first level on the way down."""
        side, *numbers = PLACE.match(self.address).groups()
        return f"{side} {'.'.join(n for n in numbers if n)}"

    def __str__(self) -> str:
        return f"{self.kind}{'' if self.head is None else f' {self.head}'}, {self.place}"


def find_ablations(
    sd: "StableDiffusion", pattern: str = "*"
) -> tuple[list["TapInfo"], list[Ablation]]:
    """The values that can be set to zero, and the ablations, both in order of execution. pattern:
    a glob of addresses; raises UsageError where it means nothing that can be ablated."""
    from xray.probe import taps

    places, ablations = [], []
    for tap in taps(sd):
        if not fnmatchcase(tap.address, pattern):
            continue
        kind = next((kind for p, kind in BLOCKS.items() if fnmatchcase(tap.address, p)), None)
        if kind:
            ablations.append(Ablation(tap.address, kind))
        elif fnmatchcase(tap.address, HEADS):
            ablations += [Ablation(tap.address, "head", head) for head in range(tap.shape[1])]
        else:
            continue
        places.append(tap)
    if not places:
        raise UsageError(f"nothing to ablate at {pattern}; try --places 'unet.mid_block*'")
    return places, ablations


def ablate(
    sd: "StableDiffusion",
    places: Sequence["TapInfo"],
    ablations: Sequence[Ablation | None],
    context: np.ndarray,
    noise: np.ndarray,
    run: dict,
) -> np.ndarray:
    """Where the runs from each noise (b, h, w, 4) end, once for each ablation, None being none:
    (ablations, b, h, w, 4).

    What is ablated is an input of one compiled function: a mask for each place.
    """
    from xray.probe import Edit, Feed
    from xray.probe.instrumented import instrument

    feed, ended = Feed(), []
    edit = Edit([tap.address for tap in places], operator.mul, source=feed)
    masked = instrument(sd, edits=edit)
    for one in progress_bar(ablations, "ablating", "ablation"):
        quiet = run | {"progress": lambda steps: steps}
        for part in parts_that_fit(sd, noise):
            feed(masks(places, [one] * len(part)))
            ended.append(draw(masked, np.repeat(context, len(part), 0), noise[part], quiet))
    return np.concatenate(ended).reshape(-1, *noise.shape)


def masks(places: Sequence["TapInfo"], ablated: Sequence[Ablation | None]) -> dict[str, np.ndarray]:
    """Address → ones of the value's shape, but zeros where the row's ablation lies."""
    made = {}
    for tap in places:
        halves, width, *rest = tap.shape
        keep = np.ones((len(ablated), width), np.float32)
        for row, one in enumerate(ablated):
            if one and one.address == tap.address:
                keep[row, slice(None) if one.head is None else one.head] = 0
        keep = np.tile(keep, (halves, 1)).reshape(-1, width, *[1] * len(rest))
        made[tap.address] = np.broadcast_to(keep, (len(keep), width, *rest))
    return made
