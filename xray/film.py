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
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stable_diffusion_tf.errors import UsageError

from . import camera, export, replay
from .frames import (
    DECODED,
    FACTS,
    IMAGE,
    TEXT,
    Frame,
    Tensors,
    fault,
    fault_of_frame,
    fault_of_image,
    frame_path,
    steps_there,
)

__all__ = ["Film"]

CHECKS = {TEXT: fault, DECODED: fault, IMAGE: fault_of_image}
LATENT, WORDS = ("prompt", "row", "column", "channel"), ("prompt", "token", "channel")
DIMS = dict.fromkeys(camera.FIELDS, LATENT) | {"context": WORDS, "uncond": WORDS}


@dataclass(frozen=True, eq=False, repr=False)
class Film:
    """A film on disk. Arrays are read when they are asked for, in float32, and not kept.

    film[3] is the frame of step 3, a mapping from name to array that knows the step's `index` and
    its timestep `t`. Steps count from 0, and film[-1] is the last that there is; len(film) and a
    loop go over the frames that can be read.

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

    @classmethod
    def open(cls, folder: str | Path) -> "Film":
        """A film by its folder, however its run ended. Every byte is looked at: files that are
        damaged, and frames that are missing, are named in `damaged`, and all others read. Raises
        UsageError where there is no film."""
        folder = Path(folder)
        if not (folder / FACTS).is_file():
            raise UsageError(f"{folder} holds no film (no {FACTS}); name the folder of one")
        facts = read_facts(folder / FACTS)
        damaged = dict(find_damage(folder, facts.get("steps", 0)))
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
        return f"<Film {self.folder}: {self.state}>"

    # --- what there is -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames.values())

    def __getitem__(self, step: int) -> Frame:
        """The frame of a step. Raises UsageError where it cannot be read."""
        step = max(self.frames, default=-1) + 1 + step if step < 0 else step
        if step not in self.frames:
            raise UsageError(f"{self.folder} has no frame of step {step}: {self.state}")
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

    def dims(self, name: str) -> tuple[str, ...]:
        """The names of an array's axes; in a frame, of one step. Raises UsageError."""
        rank = len(self.holder(name).shape(name))
        known = self.facts.get("taps", {}).get(name) or DIMS.get(name)
        return tuple(known or (f"axis_{i}" for i in range(rank)))

    def holder(self, name: str) -> Tensors:
        """A file that holds the name. Raises UsageError with the names that are near."""
        files = [*islice(self, 1), self.text, self.decoder]
        for file in files:
            if name in file:
                return file
        near = difflib.get_close_matches(name, [*chain(*files)], n=3, cutoff=0.0)
        raise UsageError(f"{self.folder} holds no {name!r}; the nearest are {', '.join(near)}")

    # --- what it shows -------------------------------------------------------------------------

    def read(self, name: str, steps: Iterable[int] | None = None) -> np.ndarray:
        """What the frames hold under a name, (steps, …); of all frames, or of these steps.
        Raises UsageError."""
        shape = self.holder(name).shape(name)
        frames = [*self] if steps is None else [self[step] for step in steps]
        if name not in self.names:
            raise UsageError(f"{name!r} is of no step; it lies in film.text or film.decoder")
        made = np.empty((len(frames), *shape), np.float32)
        for i, frame in enumerate(frames):
            made[i] = frame[name]
        return made

    @cached_property
    def image(self) -> np.ndarray | None:
        """The picture, (H, W, 3) uint8; None where the run did not get so far."""
        path = self.folder / IMAGE
        if IMAGE in self.damaged or not path.is_file():
            return None
        with Image.open(path) as image:
            return np.asarray(image)


def find_damage(folder: Path, steps: int) -> Iterator[tuple[str, str]]:
    """File → what is wrong with it. Frames may be missing only at the end of a run that has left
    no picture."""
    there = steps_there(folder)
    count = max([*there, -1, steps - 1 if (folder / IMAGE).is_file() else -1]) + 1
    checks = {folder / name: check for name, check in CHECKS.items() if (folder / name).exists()}
    checks |= {folder / FACTS: fault} | ({folder / TEXT: fault} if there else {})
    checks |= {frame_path(folder, i): fault_of_frame for i in range(count)}
    for path, find_fault in checks.items():
        if wrong := find_fault(path):
            yield within(folder, path), wrong


def within(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def read_facts(path: Path) -> dict[str, Any]:
    """What film.json says; {} where it is beyond reading."""
    try:
        facts = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return {name: fact for name, fact in facts.items() if name != "crc32"}
