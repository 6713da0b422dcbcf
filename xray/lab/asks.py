"""What the page asks for, read and checked: none of it is a path, a pattern or code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from stable_diffusion_tf.errors import UsageError

LONGEST, MOST_CHANGES = 500, 20  # letters of a text, changes of a run


class Change(NamedTuple):
    """Something that is other in a run. kind: 'weigh' (the attention to tokens, by a factor), 'off'
    (a block adds nothing), 'head' (one head sees nothing), 'patch' (a block's output from another
    film's run), 'direction' (what a word is to another, added in the middle)."""

    kind: str
    address: str = ""
    tokens: tuple[int, ...] = ()
    head: int = 0
    factor: float = 0.0
    film: str = ""
    old: str = ""
    new: str = ""


@dataclass(frozen=True)
class Ask:
    """A run. weights: one of the models that the lab offers, "" its first; back: a film whose
    picture is walked back to noise, from which the run then begins."""

    prompt: str
    negative: str = ""
    steps: int = 25
    guidance: float = 7.5
    eta: float = 0.0
    seed: int = 0
    weights: str = ""
    back: str = ""
    changes: tuple[Change, ...] = ()


def text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST


def whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def tokens(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 77 and all(map(whole(0, 76), value))


KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {  # field → its test, and what it may be
    "prompt": (text, f"a text of {LONGEST} letters at most"),
    "negative": (text, f"a text of {LONGEST} letters at most"),
    "steps": (whole(1, 200), "a whole number from 1 to 200"),
    "guidance": (number(-50, 50), "a number from -50 to 50"),
    "eta": (number(0, 1), "a number from 0 to 1"),
    "seed": (whole(0, 2**32 - 1), "a whole number"),
    "weights": (text, "a model's name"),
    "back": (text, "a film's name"),
}
OF_CHANGES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "address": (text, "an address"),
    "tokens": (tokens, "a list of places, 0 to 76"),
    "head": (whole(0, 63), "a head"),
    "factor": (number(-10, 10), "a number from -10 to 10"),
    "film": (text, "a film's name"),
    "old": (text, "a word"),
    "new": (text, "a word"),
}
NEEDED = {  # kind of change → its fields
    "weigh": ("tokens", "factor"),
    "off": ("address",),
    "head": ("address", "head"),
    "patch": ("address", "film"),
    "direction": ("old", "new", "factor"),
}


def read_ask(said: Any) -> Ask:
    """Raises UsageError for what is no run."""
    if not isinstance(said, dict) or "prompt" not in said:
        raise UsageError("a run is asked for by an object with a prompt")
    changes = said.get("changes", [])
    if not isinstance(changes, list) or len(changes) > MOST_CHANGES:
        raise UsageError(f"changes is a list of {MOST_CHANGES} at most")
    fields = {name: value for name, value in said.items() if name != "changes"}
    return Ask(**checked(fields, KINDS), changes=tuple(map(read_change, changes)))


def read_change(said: Any) -> Change:
    if not isinstance(said, dict) or said.get("kind") not in NEEDED:
        raise UsageError(f"a change is one of {', '.join(NEEDED)}")
    kind, fields = said["kind"], {name: v for name, v in said.items() if name != "kind"}
    if fields.keys() != {*NEEDED[kind]}:
        raise UsageError(f"{kind} takes {', '.join(NEEDED[kind])}")
    found = checked(fields, OF_CHANGES)
    return Change(kind, **found | {k: tuple(v) for k, v in found.items() if isinstance(v, list)})


def checked(
    said: Mapping[str, Any], kinds: Mapping[str, tuple[Callable[[Any], bool], str]]
) -> dict[str, Any]:
    for name, value in said.items():
        if name not in kinds:
            raise UsageError(f"nothing is called {name[:40]!r}; known are {', '.join(kinds)}")
        fits, wanted = kinds[name]
        if not fits(value):
            raise UsageError(f"{name} is {wanted}")
    return dict(said)
