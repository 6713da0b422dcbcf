"""The record of one run: a folder with what was asked, what each step held, and the picture.

    film.json           what was asked, of which model, on what; the names of the axes
    text.safetensors    context, uncond, and what probes read in the text encoder
    frames/000.safetensors …
                        of each step: x, eps_uncond, eps_cond, eps, x0, x_prev, and what probes
                        read in the UNet, each under its address
    decode.safetensors  what probes read in the decoder, if they did
    image.png

A run that was stopped or killed, or that filled the disk, leaves a film of the steps it finished.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from stable_diffusion_tf.errors import UsageError

from . import camera, export, page, replay
from .damage import find_damage, within
from .metadata import read_facts
from .storage import (
    DECODED,
    IMAGE,
    TEXT,
    Absent,
    Frame,
    Tensors,
    frame_path,
    read_image,
    steps_there,
)

__all__ = ["Film"]

LINE = 200  # letters at most of what one line says
LATENT, WORDS = ("prompt", "row", "column", "channel"), ("prompt", "token", "channel")
DIMS = dict.fromkeys(camera.FIELDS, LATENT) | {"context": WORDS, "uncond": WORDS}


@dataclass(frozen=True, eq=False, repr=False)
class Film:
    """A film on disk. Arrays are read when they are asked for, in float32, and not kept.

    film[3] is the frame of step 3, a mapping from name to array that knows the step's `index` and
    its timestep `t`. Steps count from 0, and film[-1] is the last that there is; film[2:4] is a
    list of those frames that can be read, and len(film) and a loop go over all of them.
    film["x0"] is an array of all steps, (steps, …); film["context"] one of no step.

    folder: where it lies. facts: what film.json says; {} where that cannot be read. frames: step →
    frame. text: context and uncond, (1, 77, width), and what probes read in the text encoder.
    decoder: what they read there. damaged: file → what is wrong with it.
    """

    folder: Path
    facts: Mapping[str, Any]
    frames: Mapping[int, Frame]
    text: Mapping[str, np.ndarray]
    decoder: Mapping[str, np.ndarray]
    damaged: Mapping[str, str]

    shoot = classmethod(camera.shoot)
    replay = replay.replay
    to_npz, to_xarray, to_tensorboard = export.to_npz, export.to_xarray, export.to_tensorboard
    to_html = page.to_html
    _repr_html_ = page.as_html

    @classmethod
    def open(cls, folder: str | Path) -> "Film":
        """A film by its folder, however its run ended. Every byte is looked at: files that are
        damaged, and frames that are missing, are named in `damaged`, and all others read. Raises
        UsageError where there is no film."""
        folder = Path(folder)
        facts = read_facts(folder)
        damaged = find_damage(folder, facts.get("steps"))
        frames = {i: frame_path(folder, i) for i in steps_there(folder)}
        whole = {i: path for i, path in frames.items() if within(folder, path) not in damaged}
        text, decoder = (
            {} if name in damaged or not (folder / name).is_file() else Tensors(folder / name)
            for name in (TEXT, DECODED)
        )
        return cls(folder, facts, {i: Frame(p) for i, p in whole.items()}, text, decoder, damaged)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        told = f"{self.folder}: {self.facts.get('prompt', '')!r}, {self.state}"
        told = " ".join(told.split())
        return f"<Film {told if len(told) <= LINE else f'{told[: LINE - 1]}…'}>"

    # --- what there is -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames.values())

    def __contains__(self, name: str) -> bool:
        return any(name in file for file in self.files)

    def __getitem__(self, key: int | slice | str) -> "Frame | list[Frame] | np.ndarray":
        """By a step its frame, by a slice of steps a list of frames, by a name an array. Raises
        UsageError for what is not there."""
        if isinstance(key, str):
            return self.read(key) if key in self.names else self.holder(key)[key]
        count = max(self.frames, default=-1) + 1
        if isinstance(key, slice):
            steps = range(count)[key]
            return [self.frames[i] for i in sorted({*steps} & {*self.frames})]
        if not isinstance(key, Integral):
            raise UsageError(
                f"a film has nothing under {key!r}: film[3] is the frame of a step, film[2:4] are "
                f'several, film["x0"] is an array of all steps'
            )
        step = count + int(key) if key < 0 else int(key)
        if step not in self.frames:
            raise UsageError(f"{self.folder} has no frame of step {key}: {self.state}")
        return self.frames[step]

    @property
    def finished(self) -> bool:
        """Whether there is a frame of every step that was asked for."""
        return len(self) == self.facts.get("steps")

    @property
    def state(self) -> str:
        """One line: how many steps there are, and what is damaged."""
        steps = f"{len(self)} of {self.facts.get('steps', '?')} steps"
        return "; ".join([steps, *(f"{name} {wrong}" for name, wrong in self.damaged.items())])

    @property
    def names(self) -> list[str]:
        """What each frame holds, in order of execution."""
        return [*next(iter(self), ())]

    @property
    def files(self) -> list[Mapping[str, np.ndarray]]:
        """A frame, and what holds the arrays of no step."""
        return [*islice(self, 1), self.text, self.decoder]

    def dims(self, name: str) -> tuple[str, ...]:
        """The names of an array's axes; in a frame, of one step. Raises UsageError."""
        rank = len(self.holder(name).shape(name))
        known = self.facts.get("taps", {}).get(name) or DIMS.get(name, ())
        fits = len({*known}) == len(known) == rank
        return tuple(known if fits else (f"axis_{i}" for i in range(rank)))

    def holder(self, name: str) -> Tensors:
        """A file that holds the name. Raises UsageError with the names that are near."""
        for file in self.files:
            if name in file:
                return file
        near = difflib.get_close_matches(name, [*chain(*self.files)], n=3, cutoff=0.0)
        told = f"the nearest are {', '.join(near)}" if near else f"it has no arrays: {self.state}"
        raise Absent(f"{self.folder} holds no {name!r}; {told}")

    # --- what it shows -------------------------------------------------------------------------

    def read(self, name: str, steps: Iterable[int] | None = None) -> np.ndarray:
        """What the frames hold under a name, (steps, …); of all frames, or of these steps.
        Raises UsageError."""
        self.holder(name)
        frames = [*self] if steps is None else [self[step] for step in steps]
        if name not in self.names:
            raise UsageError(f"{name!r} is of no step; it lies in film.text or film.decoder")
        made = np.empty((len(frames), *self.shape(name, frames)), np.float32)
        for i, frame in enumerate(frames):
            made[i] = frame[name]
        return made

    def shape(self, name: str, frames: "Iterable[Frame] | None" = None) -> tuple[int, ...]:
        """The shape of an array at each step. Raises UsageError where frames do not agree."""
        first = self.holder(name).shape(name)
        for frame in self if frames is None else frames:
            if (other := frame.shape(name)) != first:
                raise UsageError(
                    f"{name} is {other} at step {frame.index} and {first} at another; "
                    f"take it step by step, as in film[{frame.index}][{name!r}]"
                )
        return first

    @cached_property
    def image(self) -> np.ndarray | None:
        """The picture, (H, W, 3) uint8; None where the run did not get so far."""
        path = self.folder / IMAGE
        return None if IMAGE in self.damaged or not path.is_file() else read_image(path)
