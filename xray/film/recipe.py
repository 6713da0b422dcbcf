"""Probes and edits as data: what film.json keeps of them, so that a run can be made again.

A film is handed from one to another, so it names nothing that is looked up: all it can say are the
words of the tables below. A function of the user's own is kept as its name, for people to read, and
is handed in again when the film is replayed; so are arrays. A film that an edit takes its values
from is kept as its folder, told from the folder of the film that used it.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError
from xray.probe.words import classes, edits_by_source, functions, word_for

from .storage import shown

if TYPE_CHECKING:  # reading a film does without Keras
    from .film import Film

Data = dict[str, Any] | list[Any] | str | int | float | None

ALIASES = {  # what films of earlier versions say → the word
    **{f"xray.{module}:Probe": "probe" for module in ("rules", "probe")},
    **{f"xray.{module}:Edit": "edit" for module in ("rules", "probe")},
    **{f"xray.{module}:Mean": "mean" for module in ("rules", "probe")},
    **{f"xray.{module}:take": "take" for module in ("rules", "probe")},
    "_operator:add": "add",
    "_operator:mul": "multiply",
}
IN_KERAS = re.compile(r"keras\.(?:\w+\.)*\w+:(\w+)")  # as films of earlier versions spell them


# --- into film.json ----------------------------------------------------------------------------


def as_data(value: Any, folder: Path) -> Data:
    """A probe, an edit or what they are made of, as the film.json of a folder holds it."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if word := word_for(type(value), classes()):
        return {"class": word, "fields": parts_as_data(value, folder)}
    if word := word_for(value, functions() | edits_by_source()):
        return {"function": word}
    if isinstance(value, Iterable) and not is_dataclass(value):
        return [as_data(part, folder) for part in value]
    return {"own": name_of(value)}


def parts_as_data(rule: Any, folder: Path) -> dict[str, Data]:
    made = {f.name: getattr(rule, f.name) for f in fields(rule)}
    source = {"source": source_as_data(made.pop("source"), folder)} if "source" in made else {}
    return {name: as_data(part, folder) for name, part in made.items()} | source


def source_as_data(source: Any, folder: Path) -> Data:
    """A film by its way from the folder; all else that holds arrays must be handed in again."""
    if source is None:
        return None
    if isinstance(source, os.PathLike):
        if os.path.realpath(source) == os.path.realpath(folder):
            raise UsageError(f"an edit takes its values from {folder} itself; name another folder")
        try:
            return {"film": Path(os.path.relpath(source, folder)).as_posix()}
        except ValueError:  # on another drive of Windows
            return {"own": "arrays"}
    return {"own": "arrays"}


def name_of(value: Any) -> str:
    """For people to read: 'module:name', of an object without a name that of its class."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


# --- and out of it -----------------------------------------------------------------------------


class Place(NamedTuple):
    """Where data was found: the folder of the film, 'probes' or 'edits', and how to open a film."""

    folder: Path
    kind: str
    open_film: "Callable[[Path], Film]"

    def refuse(self, what: str) -> UsageError:
        return UsageError(
            f"{self.folder} was shot with {what} in its {self.kind}, and a film starts nothing: "
            f"hand in what it was shot with, as in film.replay(sd, {self.kind}=[…])"
        )


def rules_from(
    data: list[Data], folder: Path, kind: str, open_film: "Callable[[Path], Film]"
) -> list[Any]:
    """The rules that `as_data` was given; kind: 'probes' or 'edits'. Sequences come back as tuples.
    Raises UsageError for what is no word of the tables."""
    place = Place(folder, kind, open_film)
    return [made(one, place, kind.removesuffix("s")) for one in data]


def made(data: Data, place: Place, wanted: str) -> Any:
    """A rule, or a mean."""
    match data:
        case {"class": str(name), "fields": dict(parts)} if ALIASES.get(name, name) == wanted:
            return classes()[wanted](**fields_of(parts, place, wanted))
    raise place.refuse(told(data))


def fields_of(parts: dict[str, Data], place: Place, wanted: str) -> dict[str, Any]:
    """What a rule is made of."""
    readers = READERS[wanted]
    if strange := [part for part in parts if part not in readers]:
        raise place.refuse(f"a {wanted} that has {shown(strange[0])}")
    if (first := next(iter(readers))) not in parts:
        raise place.refuse(f"a {wanted} without {first}")
    read = {part: readers[part](parts[part], place) for part in parts}
    if wanted == "edit":
        takes_given = read.get("fn", edits_by_source()["take"]) in edits_by_source().values()
        if takes_given != (read.get("source") is not None):
            raise place.refuse("an edit whose function and source do not go together")
    return read


def told(data: Data) -> str:
    """What stands where no word does, for people to read."""
    match data:
        case {"own": str(name)} | {"lost": str(name)} | {"function": str(name)}:
            return "arrays of your own" if name == "arrays" else f"the function {shown(name)}"
        case {"class": str(name)}:
            return f"{shown(name)}, which is no word of a film,"
    return f"{shown(data)}, which is nothing of a film,"


def texts(data: Data, place: Place) -> Any:
    """A text or several."""
    if isinstance(data, str):
        return data
    if isinstance(data, list) and data and all(isinstance(one, str) for one in data):
        return tuple(data)
    raise place.refuse(told(data))


def numbers(data: Data, place: Place) -> tuple[int, ...] | None:
    """Indices."""
    if data is None:
        return None
    if isinstance(data, list) and all(type(one) is int and abs(one) < 2**31 for one in data):
        return tuple(data)
    raise place.refuse(told(data))


def function(data: Data, place: Place, table: Callable[[], dict[str, Callable]] = functions) -> Any:
    """A function of a table."""
    match data:
        case {"function": str(name)}:
            known = IN_KERAS.fullmatch(name)
            word = f"ops.{known[1]}" if known else ALIASES.get(name, name)
            if word in table():
                return table()[word]
    raise place.refuse(told(data))


def any_function(data: Data, place: Place) -> Callable:
    return function(data, place, lambda: functions() | edits_by_source())


def reduction(data: Data, place: Place) -> Any:
    """Of a probe: nothing, a mean or a function of the table."""
    if data is None:
        return None
    is_mean = isinstance(data, dict) and "class" in data
    return made(data, place, "mean") if is_mean else function(data, place)


def half(data: Data, place: Place) -> str | None:
    if data in (None, "cond", "uncond"):
        return data
    raise place.refuse(told(data))


def source(data: Data, place: Place) -> "Film | None":
    """A film, by a way that leads on from the folder of the one that used it."""
    match data:
        case None:
            return None
        case {"film": str(way)} if leads_on(way):
            return place.open_film(place.folder / way)
    raise place.refuse(told(data))


def leads_on(way: str) -> bool:
    """Whether a way begins at the folder, on whatever system: not at a root, a drive or a host."""
    windows = PureWindowsPath(way)
    return way != "" and way.isprintable() and not (windows.anchor or PurePosixPath(way).anchor)


READERS: Mapping[str, Mapping[str, Callable[[Data, Place], Any]]] = {  # word → field → its reader
    "probe": {"pattern": texts, "reduce": reduction},
    "mean": {"dims": texts},
    "edit": {
        "pattern": texts,
        "fn": any_function,
        "steps": numbers,
        "half": half,
        "heads": numbers,
        "tokens": numbers,
        "source": source,
    },
}
