"""A model, what it is asked, and what its pictures show."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import xray
from phantom.judge import Findings, judge, stand_alike
from phantom.prompts import known_things
from phantom.train.contexts import ends_of
from phantom.world import SIDE, Scene, for_evaluation, scenes, wording
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from stable_diffusion_tf.tokenizer import EOS
from xray.measure import Estimate, mean_of
from xray.methods.drawing import decode, draw

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

CROSS = "unet.*.attn2.probs"
SPANS = ("start", "words", "end", "padding")
NEIGHBOURS = 2  # a prompt shares no thing with so many that follow it


class Row(NamedTuple):
    """A line of the sheet."""

    part: str
    case: str
    value: Estimate


class Drawn(NamedTuple):
    """Where runs ended, (n, h, w, 4), and what is seen in their pictures; None without a judge."""

    latents: np.ndarray
    seen: list[Findings] | None


@dataclass(frozen=True)
class Patient:
    """A model and what it is asked: n prompts of two things, of which a batch is drawn at once."""

    sd: "StableDiffusion"
    told: list[Scene]
    ids: np.ndarray  # (n, 77)
    contexts: np.ndarray  # (n, 77, width)
    noise: np.ndarray  # (n, h, w, 4)
    run: dict[str, Any]
    batch: int

    @cached_property
    def spans(self) -> dict[str, np.ndarray]:
        """Token kind → which of the 77 it is in each prompt, (n, 77) bool."""
        place, end = np.arange(self.ids.shape[1]), ends_of(self.ids, EOS)[:, None]
        found = place < 1, (place > 0) & (place < end), place == end, place > end
        return dict(zip(SPANS, np.broadcast_arrays(*found), strict=True))

    @cached_property
    def plain(self) -> Drawn:
        """As the prompts are."""
        return drawn(self, self.contexts)

    @property
    def judged(self) -> bool:
        """Whether its pictures are of the size that the judge knows."""
        return self.sd.size == SIDE


def admit(
    sd: "StableDiffusion", prompts: int, steps: int, guidance: float, seed: int, batch: int
) -> Patient:
    """Prompts about things that the model knows, none of which the next ones name."""
    if batch < 1 or prompts < max(batch, 2):
        raise UsageError(f"{prompts} prompts in batches of {batch}; try --prompts 40 --batch 10")
    some = scenes(seed, 3 * prompts, for_evaluation, 2, known_things(sd))
    told = unlike(some, prompts // batch * batch)
    words = [wording(scene) for scene in told]
    ids = sd.tokenize(words)
    run = {"uncond": sd.encode_text([""]), "steps": steps, "guidance": guidance}
    run |= {"progress": lambda rows: rows}
    noise = sd.draw_noise(seed, len(told))
    return Patient(sd, told, ids, sd.encode_text(words), noise, run, batch)


def unlike(some: Sequence[Scene], number: int) -> list[Scene]:
    """The first scenes of which none shares a thing with the NEIGHBOURS before it, the last ones
    being before the first."""
    kept: list[Scene] = []
    for scene in some:
        around = kept[-NEIGHBOURS:] + (
            kept[:NEIGHBOURS] if len(kept) >= number - NEIGHBOURS else []
        )
        if not names_of(scene) & {name for other in around for name in names_of(other)}:
            kept.append(scene)
        if len(kept) == number:
            return kept
    raise UsageError(f"too few scenes for {number} unlike ones; try fewer --prompts")


def names_of(scene: Scene) -> set[str]:
    return {thing.name for thing in scene.things}


def following(some: Sequence) -> list:
    """For each the next one, after the last the first."""
    return [*some[1:], *some[:1]]


# --- drawing and judging -----------------------------------------------------------------------


def drawn(
    patient: Patient,
    contexts: np.ndarray,
    sd: "StableDiffusion | None" = None,
    prepare: Callable[[slice], None] = lambda rows: None,
) -> Drawn:
    """A picture of each context, all by one compiled function; `prepare` is told the rows of each
    batch."""
    sd, latents = sd or patient.sd, []
    for first in range(0, len(contexts), patient.batch):
        rows = slice(first, first + patient.batch)
        prepare(rows)
        latents.append(draw(sd, contexts[rows], patient.noise[rows], patient.run))
    ended = np.concatenate(latents)
    return Drawn(ended, judged(patient, ended))


def judged(patient: Patient, latents: np.ndarray) -> list[Findings] | None:
    if patient.judged:
        pictures = to_uint8(decode(patient.sd, latents))
        return [judge(picture) for picture in pictures]
    return None


def things_found(told: Sequence[Scene], seen: Sequence[Findings]) -> Estimate:
    """Which part of the things that prompts name their pictures show."""
    shown = [{match.thing.name for match in one.matches} for one in seen]
    found = [len(names_of(s) & names) / 2 for s, names in zip(told, shown, strict=True)]
    return mean_of(100 * np.array(found), "%")


def backgrounds_found(told: Sequence[Scene], seen: Sequence[Findings]) -> Estimate:
    right = [s.background == one.background for s, one in zip(told, seen, strict=True)]
    return mean_of(100 * np.array(right, float), "%")


def sides_found(told: Sequence[Scene], seen: Sequence[Findings]) -> Estimate | None:
    """Of the pictures that show both things, in how many these stand as told."""
    shown = [{m.thing.name: m.thing for m in one.matches} for one in seen]
    both = [
        stand_alike(scene, found)
        for scene, found in zip(told, shown, strict=True)
        if found.keys() == names_of(scene)
    ]
    return mean_of(100 * np.array(both, float), "%") if both else None


def moved(before: np.ndarray, after: np.ndarray) -> Estimate:
    """How far latents (n, h, w, 4) moved, the RMS as a share of what they are."""
    far, size = (
        np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=(1, 2, 3)))
        for x in (after - before, before)
    )
    return mean_of(100 * far / size, "%")


def ways(part: str, case: str, patient: Patient, made: Drawn) -> Iterator[Row]:
    """Which part of the prompts' things a change leaves, where there is a judge; and how far it
    moves the runs."""
    if made.seen is not None:
        yield Row(part, case, things_found(patient.told, made.seen))
    yield Row(f"{part}, moved by", case, moved(patient.plain.latents, made.latents))


# --- attention -------------------------------------------------------------------------------


def fed(patient: Patient, rule: Callable) -> "tuple[StableDiffusion, xray.Feed, dict[str, tuple]]":
    """A model whose cross-attention goes through rule(probs, what is fed), and where it is."""
    feed, places = xray.Feed(), {tap.address: tap.shape for tap in xray.taps(patient.sd, CROSS)}
    return xray.instrument(patient.sd, edits=xray.Edit([*places], rule, source=feed)), feed, places


def feed_rows(
    feed: "xray.Feed", places: Mapping[str, tuple], weights: np.ndarray, rows: slice
) -> None:
    """A weight for each token, (n, 77), at all places, in the prompts' half."""
    some = weights[rows]
    both = np.concatenate([np.ones_like(some), some]).astype(np.float32)[:, None, None]
    feed({at: np.broadcast_to(both, (len(both), *shape[1:])) for at, shape in places.items()})


def renormalised(probs: Any, weights: Any) -> Any:
    """Attention times weights, each query's sum kept."""
    from keras import ops

    kept = probs * weights
    return kept / (ops.sum(kept, axis=-1, keepdims=True) + 1e-9)
