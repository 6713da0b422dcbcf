"""What is typed → the options of all runs: the cross product of the values of each option."""

import csv
import importlib
import io
import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from stable_diffusion_tf.disk import open_file
from stable_diffusion_tf.errors import UsageError
from xray.options import Options

EXPERIMENTS = Path(__file__).resolve().parents[1]
OWN = {"out": "--out", "folder": "--out", "backend": "--backend"}  # of a sweep, one for all runs
FIRST = ("weights", "precision")  # vary least, as another model has to be loaded for each value


def find_experiment(name: str) -> ModuleType:
    """The script of that name, imported. Raises UsageError where there is none."""
    known, stem = sorted(path.stem for path in EXPERIMENTS.glob("te[sx]t*.py")), Path(name).stem
    if stem not in known:
        raise UsageError(f"no experiment {name}; {nearest(stem, known)}")
    return importlib.import_module(f"experiments.{stem}")


def nearest(name: str, known: Sequence[str]) -> str:
    """What to type in place of a name that is not known."""
    close = get_close_matches(name, known, 1, 0.5)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"


def grid(kind: type[Options], values: Mapping[str, Sequence[Any]]) -> list[Options]:
    """The options of each run, checked. values: option → what it takes, the last varying most.
    Raises UsageError for a product without any, and for options that go together in no run."""
    for name, some in values.items():
        if not some:
            raise UsageError(f"{name} has no value, so there is nothing to run; name one at least")
    names = sorted(values, key=lambda name: name not in FIRST)
    product = itertools.product(*(values[name] for name in names))
    made = [kind(**dict(zip(names, some, strict=True))) for some in product]
    for one in made:
        one.check()
    return made


# --- the values of one option ------------------------------------------------------------------


def check_option(kind: type[Options], name: str, said: str) -> None:
    """Raises UsageError where the experiment has no such option, or the sweep has one for all."""
    if name in OWN:
        raise UsageError(f"{said}: a sweep has one {name} for all of its runs; type {OWN[name]}")
    if now := kind.renamed.get(f"--{name.replace('_', '-')}"):
        raise UsageError(f"{said}: {name} is called {now.removeprefix('--')} now")
    known = [field.name for field in fields(kind) if field.name not in (*OWN, "budget")]
    if name not in known:
        raise UsageError(f"{said}: the experiment has no option {name}; {nearest(name, known)}")


def read_setting(kind: type[Options], text: str) -> tuple[str, list[Any]]:
    """`guidance=1,4,7.5` → the option and its values. A value that is a list has spaces inside
    (`scales=1 4,1 8`), one with a comma is quoted as in CSV. Raises UsageError."""
    name, sign, said = text.partition("=")
    if not sign:
        raise UsageError(f"--set {text} names no values; type it as --set guidance=1,4,7.5")
    name = name.strip().removeprefix("--").replace("-", "_")
    check_option(kind, name, f"--set {text}")
    hint = get_type_hints(kind)[name]
    parts = next(csv.reader([said], skipinitialspace=True), []) if said.strip() else []
    return name, [value_of(hint, part, text) for part in parts]


def value_of(hint: Any, part: str, text: str) -> Any:
    """A value of the type that an option has. Raises UsageError where it is none."""
    if hint is str:
        return part
    try:
        words = shlex.split(part) if "tuple" in str(hint) else [part.strip()]
        with redirect_stderr(io.StringIO()):
            return tyro.cli(hint, args=words, console_outputs=False)
    except (SystemExit, ValueError):  # ValueError: a quotation that does not end
        raise UsageError(f"--set {text}: “{part}” is {unlike(hint)}") from None


def unlike(hint: Any) -> str:
    """What a value is that is not of this type."""
    if get_origin(hint) is Literal:
        return f"none of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is tuple:
        return f"not such a list: {', '.join(map(called, get_args(hint)))}, with spaces between"
    return f"no {called(hint)}"


def called(hint: Any) -> str:
    """A type in plain words."""
    known = {int: "whole number", float: "number", bool: "True or False", str: "text", ...: "…"}
    return known.get(hint) or re.sub(r"typing\.|pathlib\.", "", str(hint))


def read_seeds(text: str) -> list[int]:
    """`0-99`, `3`, `0-4,7,9` → the seeds. Raises UsageError."""
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII)
        if not ends:
            raise UsageError(f"--seeds {text}: “{part}” is no seed and no range; type it as 0-99")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return found


def read_prompts(path: Path) -> list[str]:
    """The lines of a file that say something. Raises UsageError where it cannot be read, is not
    UTF-8, or says nothing."""
    with open_file(path) as file:
        held = file.read()
    try:
        text = held.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = held.count(b"\n", 0, error.start) + 1
        odd = f"line {line} holds the byte 0x{held[error.start]:02x}, which is not UTF-8"
        raise UsageError(f"{path}: {odd}; save the file as UTF-8") from None
    prompts = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    if not prompts:
        raise UsageError(f"{path} holds no prompt; write one on each line")
    for prompt in prompts:
        if not prompt.isprintable():
            raise UsageError(f"{path}: “{prompt}” holds what cannot be printed; take it out")
    return prompts
