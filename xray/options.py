"""What experiments are asked for: the options that several share, each said once.

An experiment's own options are a dataclass over one of these; the shell's --help is made of it, and
a notebook fills it in: `main(sd, Options(prompt="a cat"))`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from stable_diffusion_tf.arguments import check_seed
from stable_diffusion_tf.backend import BACKENDS
from stable_diffusion_tf.errors import UsageError

Prompt = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]
Other = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OTHER")]
Prompts = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]
Refined = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="REFINED")]
Picture = Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")]
Pictures = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")]
Precision = Literal["float32", "bfloat16", "float16-storage", "int8-storage"]

UNITS = {"s": 1, "min": 60, "h": 3600}  # seconds
EXAMPLE = "a rabbit left of a strawberry on a purple background"


@dataclass(frozen=True)
class Options:
    """What every experiment is asked for."""

    guided: ClassVar[bool] = False  # whether it needs ε_uncond, which not every model has
    renamed: ClassVar[Mapping[str, str]] = {}  # options by their former names → by today's

    weights: str = "phantom"
    """a model's name, or its folder or file."""
    backend: Literal[BACKENDS] | None = None
    """what Keras computes with; by default what KERAS_BACKEND says, or TensorFlow."""
    precision: Precision = "float32"
    """of the numbers; the others take half the memory, int8-storage, on OpenVINO, a quarter."""
    size: int | None = None
    """pixels along the side of pictures; by default, what the model was trained on."""
    out: Path = Path("outputs")
    """the folder to save into: each run makes a new one inside."""
    budget: str | None = None
    """how long it may take, as 90s, 5min or 1h: fewer pictures and steps are taken as need be."""
    folder: Annotated[Path | None, tyro.conf.Suppress] = None
    """of this run; the shell's frame makes it."""

    @property
    def subject(self) -> str:
        """What the run's folder is named after."""
        named = (getattr(self, name, "") for name in ("prompt", "thing"))
        prompts = *named, *getattr(self, "prompts", ())
        picture = getattr(self, "picture", None)
        return next(filter(None, prompts), picture.stem if picture else self.weights)

    def check(self) -> None:
        """Raises UsageError for what no run can be made of; called before the model is loaded."""
        if self.size is not None:
            check_range("size", self.size, 8, 4096, 512)


@dataclass(frozen=True)
class Seeded(Options):
    """For what is drawn at random."""

    seed: int = 0
    """draws noise, scenes and whatever else is random; the same seed, the same answer."""

    def check(self) -> None:
        super().check()
        check_seed(self.seed)


@dataclass(frozen=True)
class Sampling(Seeded):
    """For what draws from noise."""

    steps: int = 25
    """steps from noise to picture, 1 to 1000."""
    guidance: float = 7.5
    """scale of classifier-free guidance; 1 is none."""

    def check(self) -> None:
        super().check()
        check_range("steps", self.steps, 1, 1000, 25)


@dataclass(frozen=True)
class Batch(Sampling):
    """For what draws from several noises."""

    pictures: int = 8
    """how many noises each is drawn from, 2 to 64."""

    def check(self) -> None:
        super().check()
        check_range("pictures", self.pictures, 2, 64, 8)


def seconds_in(duration: str) -> float:
    """'90s', '5min' or '1.5h' in seconds. Raises UsageError for what is no duration."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]+)", duration.strip())
    if not match or match[2] not in UNITS or not float(match[1]):
        raise UsageError(f"--budget {duration} is no duration; try --budget 5min")
    return float(match[1]) * UNITS[match[2]]


def check_rising(option: str, values: Sequence[float], least: int, usual: str = "1 5 10") -> None:
    """Raises UsageError where an option's values are fewer, or do not rise."""
    if len(values) < least or any(b <= a for a, b in pairwise(values)):
        raise UsageError(f"--{option} takes {least} or more that rise; try --{option} {usual}")


def check_range(option: str, value: float, least: float, most: float, usual: float) -> None:
    """Raises UsageError where the value of an option lies outside of its range, ends included."""
    if not least <= value <= most:
        raise UsageError(f"--{option} {value:g} is not from {least:g} to {most:g}; try {usual:g}")
