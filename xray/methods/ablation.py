"""Parts of the UNet knocked out, one at a time, all by one compiled function."""

import operator
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .drawing import draw

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


class Knockout(NamedTuple):
    """A value that is set to zero: where it is, what it is, and which head alone, if one."""

    address: str
    kind: str
    head: int | None = None

    @property
    def place(self) -> str:
        """'down 0.1': the second cell of the first level on the way down."""
        side, *numbers = PLACE.match(self.address).groups()
        return f"{side} {'.'.join(n for n in numbers if n)}"


def find_knockouts(sd: "StableDiffusion") -> tuple[list["TapInfo"], list[Knockout]]:
    """The values that can be set to zero, and the knock-outs, both in order of execution."""
    from xray.probe import taps

    places, knockouts = [], []
    for tap in taps(sd):
        kind = next((kind for p, kind in BLOCKS.items() if fnmatchcase(tap.address, p)), None)
        if kind:
            knockouts.append(Knockout(tap.address, kind))
        elif fnmatchcase(tap.address, HEADS):
            knockouts += [Knockout(tap.address, "head", head) for head in range(tap.shape[1])]
        else:
            continue
        places.append(tap)
    return places, knockouts


def knock_out(
    sd: "StableDiffusion",
    places: Sequence["TapInfo"],
    knockouts: Sequence[Knockout],
    context: np.ndarray,
    noise: np.ndarray,
    run: dict,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs end, (batch, h, w, 4) with nothing knocked out, from each noise, and
    (knock-outs, h, w, 4) from the first.

    What is knocked out is an input of one compiled function: a mask for each place, and in each row
    of the batch another one.
    """
    from xray.probe import Edit, Feed
    from xray.probe.instrumented import instrument

    batch, feed = len(noise), Feed()
    contexts, first = np.repeat(context, batch, 0), np.repeat(noise[:1], batch, 0)
    edit = Edit([tap.address for tap in places], operator.mul, source=feed)
    masked = instrument(sd, edits=edit)
    feed(masks(places, [None] * batch))
    untouched, ended = draw(masked, contexts, noise, run), []
    for some in in_batches(knockouts, batch):
        feed(masks(places, some))
        ended.append(draw(masked, contexts, first, run))
    return untouched, np.concatenate(ended)[: len(knockouts)]


def in_batches(knockouts: Sequence[Knockout], batch: int) -> Iterator[list[Knockout | None]]:
    """So many at a time; the last ones are filled up by None."""
    for start in range(0, len(knockouts), batch):
        some = list(knockouts[start : start + batch])
        yield some + [None] * (batch - len(some))


def masks(
    places: Sequence["TapInfo"], knocked_out: Sequence[Knockout | None]
) -> dict[str, np.ndarray]:
    """Address → ones of the value's shape, but zeros where the row's knock-out lies."""
    made = {}
    for tap in places:
        halves, width, *rest = tap.shape
        keep = np.ones((len(knocked_out), width), np.float32)
        for row, one in enumerate(knocked_out):
            if one and one.address == tap.address:
                keep[row, slice(None) if one.head is None else one.head] = 0
        keep = np.tile(keep, (halves, 1)).reshape(-1, width, *[1] * len(rest))
        made[tap.address] = np.broadcast_to(keep, (len(keep), width, *rest))
    return made
