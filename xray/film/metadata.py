"""film.json as it is read: what it may say, and nothing else."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stable_diffusion_tf.errors import UsageError

from .storage import FACTS, MOST, NoJson, Unfit, open_regular, read_json, shown

LARGEST = 2**26  # numbers of a latent: a picture of 32,768 pixels a side


def text(value: Any) -> bool:
    return isinstance(value, str)


def plain(value: Any) -> bool:
    """What can be told in a line of a terminal."""
    return value is None or isinstance(value, bool) or number(value) or line(value)


def line(value: Any) -> bool:
    return text(value) and value.isprintable()


def whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def number(value: Any) -> bool:
    return type(value) in (int, float)


def sides(value: Any) -> bool:
    """(b, h, w, c)"""
    counts = isinstance(value, list) and len(value) == 4 and all(map(whole, value))
    return counts and 0 < math.prod(value) <= LARGEST


def list_of(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def by_name(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


def anything(_: Any) -> bool:
    return True


KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {  # name → its test, and what it asks for
    **dict.fromkeys(("prompt", "negative", "scheduler", "weights"), (text, "a text")),
    **dict.fromkeys(("precision", "backend"), (text, "a text")),
    **dict.fromkeys(("seed", "steps"), (whole, "a whole number")),
    **dict.fromkeys(("guidance", "eta"), (number, "a number")),
    "start": (("seed", "latent").__contains__, "'seed' or 'latent'"),
    "latent_shape": (sides, "four whole numbers, as (1, h, w, 4)"),
    "tokens": (list_of(text), "a list of texts"),
    "taps": (by_name(list_of(text)), "a list of axes for each name"),
    "kernels": (by_name(plain), "a text for each name"),
    **dict.fromkeys(("versions", "weights_hash"), (by_name(line), "a text for each name")),
    **dict.fromkeys(("probes", "edits"), (list_of(anything), "a list")),
}


def read_facts(folder: Path) -> dict[str, Any]:
    """What the film.json of a folder says; {} where it is damaged beyond reading. Raises UsageError
    where there is none, and where it says what no film says."""
    path = folder / FACTS
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MOST:
                raise Unfit(f"is longer than {MOST} bytes")
            facts = read_json(file.read())
        check_kinds(facts)
    except NoJson:
        return {}
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no film (no {FACTS}); name the folder of one") from None
    except OSError as error:
        raise UsageError(f"no film: {path} cannot be read ({error.strerror})") from None
    except ValueError as error:  # Unfit, or what a path cannot hold
        raise UsageError(f"no film: {shown_path(path)} {error}") from None
    return {name: fact for name, fact in facts.items() if name != "crc32"}


def check_kinds(facts: Mapping[str, Any]) -> None:
    """Raise `Unfit` for a fact of another kind."""
    for name, (fits, wanted) in KINDS.items():
        if name in facts and not fits(facts[name]):
            raise Unfit(f"says {name}: {shown(facts[name])}, where {wanted} belongs")


def shown_path(path: Path) -> str:
    return str(path) if str(path).isprintable() else shown(str(path))
