"""A film's run once more, beside the film: does it say the same?"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError
from xray.measure import parting
from xray.rounding import MARGIN, Held, floor_of_runs, hold, twin_runs

from .camera import FIELDS, Arrays, Part, describe, digest, run
from .recipe import rules_from
from .storage import FACTS

if TYPE_CHECKING:  # reading a film does without Keras
    from stable_diffusion_tf import StableDiffusion
    from xray.probe.interventions import Edit, Probe

    from .film import Film

ELSEWHERE = ("kernels", "version", "backend")  # what rounds otherwise, as `changed` tells it
NEEDED = (
    *("prompt", "negative", "seed", "steps", "guidance", "eta", "start", "latent_shape"),
    *("precision", "backend", "versions", "weights_hash", "probes", "edits"),
)


class Row(NamedTuple):
    """How far a value is from what the film holds: max|a − b| / max|b|; step None: outside of the
    loop."""

    address: str
    step: int | None
    difference: float


@dataclass(frozen=True)
class Replay:
    """A run beside the film of it. rows: in order of execution; changed: what is not as it was
    when the film was shot; rounding: how far it reaches here, as a share, where the film is from
    another machine or kernels, None where every bit must be the same; level: one level of 255, by
    which it may move a pixel, as a share of the film's brightest."""

    rows: tuple[Row, ...]
    changed: tuple[str, ...]
    rounding: float | None = None
    level: float = 0.0

    @property
    def identical(self) -> bool:
        return bool(self.rows) and not any(row.difference for row in self.rows)

    @property
    def first(self) -> Row | None:
        """Where the two part, by more than rounding if the film is from elsewhere."""
        return next((row for row in self.rows if row.difference > self.allowed(row)), None)

    def allowed(self, row: Row) -> float:
        """How far rounding may move this value."""
        if self.rounding is None:
            return 0.0
        return MARGIN * self.rounding + (self.level if row.address == "image" else 0)

    @property
    def verdict(self) -> str:
        """'identical', 'same within rounding: …' or 'differs from step …'."""
        if self.identical:
            return f"identical: {len(self.rows)} arrays"
        if not self.rows:
            return "nothing to compare: the film holds no arrays"
        if self.first:
            return f"differs from {step_name(self.first) or 'outside of the loop'}"
        most = max(row.difference for row in self.rows if row.address != "image")
        told = f"differs by {most:.1e}; rounding here reaches {self.rounding:.1e}"
        return f"same within rounding: {told}"

    @property
    def largest(self) -> list[Row]:
        """Of each address the step at which the two are farthest apart, in order of execution."""
        found: dict[str, Row] = {}
        for row in self.rows:
            if row.address not in found or row.difference > found[row.address].difference:
                found[row.address] = row
        return list(found.values())

    def __str__(self) -> str:
        if self.rows and self.first is None:
            return "\n".join([self.verdict, *self.changed])
        table = [
            f"{row.address:84} {step_name(row):9} {row.difference:.1e}"
            for row in self.largest
            if row.difference
        ]
        place = f", at {self.first.address}; largest differences:" if self.first else ""
        told = f"{self.verdict}{place}"
        return "\n".join([told, *table, *self.changed])


def step_name(row: Row) -> str:
    return "" if row.step is None else f"step {row.step}"


def replay(
    film: "Film",
    sd: "StableDiffusion",
    probes: "str | Probe | Sequence[str | Probe] | None" = None,
    edits: "Edit | Sequence[Edit] | None" = None,
) -> Replay:
    """Make the run again as film.json tells it, as far as the film goes, and compare; nothing is
    written. With one machine, backend and precision it is identical; where the kernels are others,
    it is held against the rounding of this machine, which the same run tells alone and in a batch.

    sd: the model, or an instrument, whose rules stand for those of the film. probes, edits: None
    takes those of the film. Nothing that a film names is looked up: where it
    was shot with a function of your own, or with arrays, UsageError says so; hand them in then.
    """
    from xray.probe.instrumented import instrument

    facts = film.facts
    if missing := [name for name in NEEDED if name not in facts]:
        raise UsageError(f"{film.folder / FACTS} says no {missing[0]}; shoot the film again")
    plain = getattr(sd, "plain", sd)
    own = {name: getattr(sd, name) for name in ("probes", "edits")} if plain is not sd else {}
    probes, edits = (
        own.get(name) or rules_from(facts[name], film.folder, name, film.open)
        if given is None
        else given
        for name, given in (("probes", probes), ("edits", edits))
    )
    rows, hashes = [], {}
    seen = instrument(plain, probes, edits)
    for part in as_far_as(film, run(seen, facts, starting(film, sd))):
        rows += compare(part, KEPT[part.network](film, part.step))
        if part.network not in hashes:
            hashes[part.network] = digest(sd.network(part.network))
    other = changed(facts, describe(sd) | {"weights_hash": hashes})
    if not any(row.difference for row in rows) or not any(c.startswith(ELSEWHERE) for c in other):
        return Replay(tuple(rows), other)
    return Replay(tuple(rows), other, rounding_of(film, plain), level_of(film))


def rounding_of(film: "Film", sd: "StableDiffusion") -> float:
    """How far rounding reaches here in the film's run, without its edits, as a share."""
    context, uncond = np.split(sd.encode_text([film.facts["prompt"], film.facts["negative"]]), 2)
    runs = twin_runs(sd, context, starting(film, sd), film.facts | {"uncond": uncond})
    return floor_of_runs(runs, FIELDS)


def level_of(film: "Film") -> float:
    """One level of 255, as a share of the brightest of the film's picture."""
    return 0.0 if film.image is None else 1 / max(1, int(film.image.max()))


KEPT = {  # network → what the film holds of one call of it
    "text_encoder": lambda film, _: film.text,
    "unet": lambda film, step: film.frames.get(step.index, {}),
    "decoder": lambda film, _: {**film.decoder, "image": film.image},
}


def starting(film: "Film", sd: "StableDiffusion") -> np.ndarray:
    """The latent that the run started from, (1, h, w, 4). Raises UsageError."""
    shape = tuple(film.facts["latent_shape"])
    if len(film) and (kept := film.shape("x")) != shape:
        raise UsageError(f"{film.folder / FACTS} says a latent of {shape}, the frames hold {kept}")
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
    """What differs of the weights, the precision, the backend, its version and its kernels. A film
    that tells no kernels is older than they are."""
    before, after = (
        {"precision": facts["precision"], "backend": facts["backend"]}
        | {f"version of {name}": told for name, told in facts["versions"].items()}
        | {f"kernels, {name}": told for name, told in facts.get("kernels", {}).items()}
        | {f"weights of {name}": told[:12] for name, told in facts["weights_hash"].items()}
        for facts in (was, now)
    )
    both = [name for name in before if name in after]
    return tuple(
        f"{name}: {before[name]}, now {after[name]}" for name in both if before[name] != after[name]
    )


def unwatched(sd: "StableDiffusion", film: "Film") -> Held:
    """Where a film's run ends, beside the same run when nobody looks."""
    text, facts = film.text, film.facts
    run = facts | {"uncond": text["uncond"]}
    runs = twin_runs(sd, text["context"], film[0]["x"], run)
    ends = [row for steps in runs for row in steps[-1].x_prev]
    return hold(film[len(film) - 1]["x_prev"][0], ends[0], ends)
