"""`run`: draw a picture and keep in memory what was read on the way, as `run_with_cache` does for
language models (TransformerLens)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.machine import memory
from xray.probe.addresses import check_patterns
from xray.probe.instrumented import Instrument, instrument
from xray.probe.interventions import Edit, Probe

from .camera import (
    FIELDS,
    Part,
    Progress,
    facts_of,
    first_latent,
    look_ahead,
    megabytes,
    record,
    rules_as_data,
)
from .camera import run as parts_of
from .film import DIMS, Film
from .html import brief, data_uri


def run(
    sd: StableDiffusion,
    prompt: str,
    read: str | Probe | Sequence[str | Probe] = (),
    edits: Edit | Sequence[Edit] = (),
    *,
    negative: str = "",
    steps: int = 25,
    guidance: float = 7.5,
    eta: float = 0.0,
    seed: int = 0,
    height: int | None = None,
    width: int | None = None,
    latent: np.ndarray | None = None,
    progress: Progress | None = None,
) -> "tuple[np.ndarray, Cache]":
    """Draw a picture as `sd.generate` does: the picture, (H, W, 3) uint8, and a `Cache` of the
    values of the loop and of all that was asked to be read, at every step.

    read: globs of addresses, or Probes. edits: Edits in force. The other arguments are those of
    `sd.generate`; latent: where to start, (1, h, w, 4). Raises UsageError before the first step
    where what is read would not fit into the memory that is free; `Film.shoot` writes it to disk.
    """
    seen = instrument(sd, read, edits)
    start = first_latent(sd, seed, height, width, latent)
    check_memory(look_ahead(sd, start, seen.probes), steps)
    asked = {"seed": seed, "negative": negative, "steps": steps, "guidance": guidance, "eta": eta}
    facts = facts_of(sd, prompt, start, latent is None, asked)
    parts = tuple(parts_of(seen, facts, start, progress))
    return parts[-1].arrays["image"], Cache(seen, facts, parts, dict(seen.reads.dims))


def check_memory(reads: Mapping[str, int], steps: int) -> None:
    """Raise UsageError where the reads of all steps, bytes by address of one, do not fit."""
    needed, free = steps * sum(reads.values()), memory().available
    if free is not None and needed > free:
        raise UsageError(
            f"{steps} steps of what is read take {megabytes(needed)}, and {megabytes(free)} are "
            f"free; narrow the pattern, reduce it with Mean(…), or shoot a film: Film.shoot(sd, …)"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Cache:
    """What a run read, in memory. It is taken wherever a film is: by heat maps, as the source of an
    Edit, by `compare_films`.

    cache["unet.mid_block"] is (steps, …), and (…) for what was read in the text encoder or the VAE.
    cache[3] are the values of step 3, name → array, those of the loop among them (x, eps_uncond,
    eps_cond, eps, x0, x_prev); cache[2:4] is a list of such; len(cache) and a loop go over steps.
    """

    sd: Instrument
    facts: Mapping[str, Any]
    parts: tuple[Part, ...]
    taps: Mapping[str, tuple[str, ...]]

    @property
    def frames(self) -> dict[int, Mapping[str, np.ndarray]]:
        return {part.step.index: part.arrays for part in self.parts if part.step}

    @property
    def text(self) -> Mapping[str, np.ndarray]:
        """context and uncond, (1, 77, width), and what was read in the text encoder."""
        return self.parts[0].arrays

    @property
    def decoder(self) -> Mapping[str, np.ndarray]:
        """What was read in the image decoder."""
        return {name: array for name, array in self.parts[-1].arrays.items() if name != "image"}

    @property
    def image(self) -> np.ndarray:
        """The picture, (H, W, 3) uint8."""
        return self.parts[-1].arrays["image"]

    @property
    def names(self) -> list[str]:
        """All that is there, in order of execution."""
        return [*self.text, *next(iter(self)), *self.decoder]

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        return iter(self.frames.values())

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, key: int | slice | str) -> Any:
        frames = [*self]
        if not isinstance(key, str):
            return frames[key]
        for outside in (self.text, self.decoder):
            if key in outside:
                return outside[key]
        check_patterns([key], self.names)
        return np.stack([frame[key] for frame in frames])

    def dims(self, name: str) -> tuple[str, ...]:
        """The names of an array's axes, at one step."""
        return tuple(self.taps.get(name) or DIMS[name])

    def save(self, out: str | Path) -> Film:
        """The same as a film in a folder, new or without a film."""
        out = Path(out)
        facts = {**self.facts, **rules_as_data(self.sd, out)}
        record(self.sd, facts, self.parts, self.taps, out, math.inf)
        return Film.open(out)

    def _repr_html_(self) -> str:
        names = "".join(f"<li>{brief(name)}</li>" for name in self.names)
        told = brief(repr(self)[1:-1])
        return f'<div><img alt="" src="{data_uri(self.image)}"><p>{told}</p><ul>{names}</ul></div>'

    def __repr__(self) -> str:
        read = len(self.names) - len(FIELDS) - 2
        return f"<Cache of {self.facts['prompt']!r}: {len(self)} steps, {read} values read>"
