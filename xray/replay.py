"""A film's run once more, beside the film: does it say the same?"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError

from .camera import Arrays, Part, describe, digest, run
from .frames import FACTS
from .measure import parting
from .recipe import from_data

if TYPE_CHECKING:  # reading a film does without Keras
    from stable_diffusion_tf import StableDiffusion

    from .film import Film
    from .rules import Edit, Probe

NEEDED = ("prompt", "negative", "seed", "steps", "guidance", "eta", "start", "probes", "edits")


class Row(NamedTuple):
    """How far a value is from what the film holds: max|a − b| / max|b|; step None: outside of the
    loop."""

    address: str
    step: int | None
    difference: float


@dataclass(frozen=True)
class Replay:
    """A run beside the film of it. rows: in order of execution; changed: what is not as it was
    when the film was shot."""

    rows: tuple[Row, ...]
    changed: tuple[str, ...]

    @property
    def identical(self) -> bool:
        return bool(self.rows) and self.first is None

    @property
    def first(self) -> Row | None:
        """Where the two part."""
        return next((row for row in self.rows if row.difference), None)

    @property
    def largest(self) -> list[Row]:
        """Of each address the step at which the two are farthest apart, in order of execution."""
        found: dict[str, Row] = {}
        for row in self.rows:
            if row.address not in found or row.difference > found[row.address].difference:
                found[row.address] = row
        return list(found.values())

    def __str__(self) -> str:
        if self.identical:
            return "\n".join([f"identical: {len(self.rows)} arrays", *self.changed])
        table = [
            f"{row.address:84} {step_name(row):9} {row.difference:.1e}"
            for row in self.largest
            if row.difference
        ]
        told = f"parts first at {self.first.address}, {step_name(self.first)}; largest differences:"
        return "\n".join([told, *table, *self.changed])


def step_name(row: Row) -> str:
    return "" if row.step is None else f"step {row.step}"


def replay(
    film: "Film",
    sd: "StableDiffusion",
    probes: "Sequence[Probe] | None" = None,
    edits: "Sequence[Edit] | None" = None,
) -> Replay:
    """Make the run again as film.json tells it, as far as the film goes, and compare; nothing is
    written. On one machine, backend and precision it is identical.

    probes, edits: None takes those of the film. Raises UsageError where one of them has a function
    that cannot be found by its name; hand them in then.
    """
    from .instrumented import instrument

    facts = film.facts
    if missing := [name for name in NEEDED if name not in facts]:
        raise UsageError(f"{film.folder / FACTS} says no {missing[0]}; shoot the film again")
    probes, edits = (
        from_data(facts[name], film.folder, film.open) if given is None else given
        for name, given in (("probes", probes), ("edits", edits))
    )
    rows, hashes = [], {}
    seen = instrument(sd, probes, edits)
    for part in as_far_as(film, run(seen, facts, starting(film, sd))):
        rows += compare(part, KEPT[part.network](film, part.step))
        if part.network not in hashes:
            hashes[part.network] = digest(sd.network(part.network))
    return Replay(tuple(rows), changed(facts, describe(sd) | {"weights_hash": hashes}))


KEPT = {  # network → what the film holds of one call of it
    "text_encoder": lambda film, _: film.text,
    "unet": lambda film, step: film.frames.get(step.index, {}),
    "decoder": lambda film, _: {**film.decoder, "image": film.image},
}


def starting(film: "Film", sd: "StableDiffusion") -> np.ndarray:
    """The latent that the run started from, (1, h, w, 4)."""
    if film.facts["start"] == "latent":
        return film[0]["x"]
    sides = (side * sd.vae_config.factor for side in film.facts["latent_shape"][1:3])
    return sd.draw_noise(film.facts["seed"], 1, *sides)


def as_far_as(film: "Film", parts: Iterable[Part]) -> Iterator[Part]:
    """The parts that a film has which may have ended early."""
    last = max(film.frames, default=-1)
    for part in parts:
        yield part
        if film.image is None and (part.step.index if part.step else -1) >= last:
            return


def compare(part: Part, kept: Arrays) -> list[Row]:
    """How far each array is that both have."""
    index = part.step.index if part.step else None
    return [
        Row(name, index, apart(np.asarray(array), kept[name]))
        for name, array in part.arrays.items()
        if name in kept
    ]


def apart(made: np.ndarray, kept: np.ndarray) -> float:
    return parting(made, kept) if made.shape == kept.shape else math.inf


def changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs of the weights, the precision, the backend and its version."""
    before, after = (
        {"precision": facts["precision"], "backend": facts["backend"]}
        | {f"version of {name}": told for name, told in facts["versions"].items()}
        | {f"weights of {name}": told for name, told in facts["weights_hash"].items()}
        for facts in (was, now)
    )
    both = [name for name in before if name in after]
    return tuple(
        f"{name}: {before[name]:.12}, now {after[name]:.12}"
        for name in both
        if before[name] != after[name]
    )
