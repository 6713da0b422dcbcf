"""Where does a port part from its original, and why?

Two Keras models of one class are paired by structure, two of different classes or a Keras and a
torch model by names.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import keras
import numpy as np

from stable_diffusion_tf.errors import UsageError
from xray.probe.interventions import Probe

from .causes import NEARER, Side, cause_of, given_to
from .comparison import Arrays, Comparison, Row, between
from .structure import Structure, as_arguments, as_array, called_at, values_of
from .torch_hooks import channels_last, hooked, tensors

Match = Mapping[str, str] | Callable[[str], str | None]
KEPT = re.compile(r"(.*?)((?:#\d+)?(?::.*)?)")  # an address, and which call and which part of it


@dataclass(frozen=True)
class PortComparison(Comparison):
    """Two models side by side, by the addresses of the first.

    names: address in a → address in b. inputs: how far apart the inputs of the layer are where the
    two part first, as a share; None where that is not known. cause: a sentence, if a cheap test
    confirmed one.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    inputs: float | None = None
    cause: str | None = None

    def __str__(self) -> str:
        return "\n".join([*self.table(), *self.findings(), *self.lacking()])

    def findings(self) -> Iterator[str]:
        """The verdict, and what is known of the first value that parts."""
        if not self.first:
            yield self.verdict
            return
        there = self.names.get(self.first.address, self.first.address)
        yield self.verdict + (f" (in b: {there})" if there != self.first.address else "")
        if self.inputs is not None and self.inputs <= self.tolerance:
            yield f"what this layer is given agrees to {self.inputs:.1e}"
        elif self.inputs is not None:
            yield (
                f"what this layer is given parts by {self.inputs:.1e} already, and every value "
                "before agrees: look at what lies between and has no pair"
            )
        yield f"likely cause: {self.cause}" if self.cause else "no cheap test tells the cause"

    def lacking(self) -> Iterator[str]:
        for side, addresses in (("a", self.only_one), ("b", self.only_other)):
            yield from (f"only in {side}: {address or 'the whole'}" for address in addresses)


def compare_models(
    a: keras.Model, b: Any, x: Any, match: Match | None = None, tolerance: float = 1e-4
) -> PortComparison:
    """Where two models part, value by value in the order in which `a` computes, and why.

    a: any Keras 3 model. b: another, or a `torch.nn.Module` in eval mode. Neither is changed.
    x: what both are given: an array, a list or a dict as one argument, a tuple as several. torch
        gets pictures (b, h, w, c) as (b, c, h, w), a list as several arguments too, and a dict by
        keywords.
    match: what b calls a value of a: a mapping of addresses, in which each `*` of a key may stand
        in its value again; or a function, address → address or None. For torch, b's side is the
        name in `named_modules()`. Where b is of a's class, None pairs by structure: the attribute
        that holds a layer, else its turn in its class; the names that Keras gave do not matter.
    tolerance: of max|a − b| / max|b|, from which on two values part.

    Printed: a table, the first value that parts, a likely cause where a test confirmed one, and
    what only one of the two has. Raises UsageError where nothing can be paired, for an address
    in `match` that is not there, and for a torch module in training.
    """
    torch = is_torch(b)
    check(a, b, torch, match)
    one, at = values_of(a, x, Probe("*"))
    other, there = (torch_values(b, x), None) if torch else values_of(b, x, Probe("*"))
    names = by_structure(one, at, other, there) if match is None else by_name(match, one, other)
    seen = {key: laid_out(other[name], one[key], torch) for key, name in names.items()}
    rows = tuple(between(key, one[key], seen[key]) for key in one if key in names)
    lacking = tuple(key for key in one if key not in names), unpaired(other, names)
    found = PortComparison(rows, tolerance, *lacking, names=names)
    if not found.first:
        return found
    sides, inputs = both_sides(a, b, x, found.first, names, one, seen)
    cause = cause_of(sides, found.first.difference, tolerance)
    return PortComparison(rows, tolerance, *lacking, names=names, inputs=inputs, cause=cause)


def unpaired(other: Arrays, names: Mapping[str, str]) -> tuple[str, ...]:
    paired = set(names.values())
    return tuple(key for key in other if key not in paired)


def check(a: Any, b: Any, torch: bool, match: Match | None) -> None:
    """Raises UsageError for what cannot be compared."""
    if not isinstance(a, keras.Model):
        raise UsageError(f"a is a {type(a).__name__}; it must be a keras.Model")
    if not torch and not isinstance(b, keras.Model):
        raise UsageError(
            f"b is a {type(b).__name__}; it must be a keras.Model or a torch.nn.Module"
        )
    if torch and b.training:
        raise UsageError("b is in training, where a call changes a module: type b.eval() first")
    if match is None and (torch or type(a) is not type(b)):
        raise UsageError(
            f"a is a {type(a).__name__} and b a {type(b).__name__}: say which value is which, "
            "match={address in a: " + ("name in b.named_modules()}" if torch else "address in b}")
        )


# --- pairs --------------------------------------------------------------------------------------


def by_structure(one: Arrays, at: Structure, other: Arrays, there: Structure) -> dict[str, str]:
    """Address in a → address in b of the value that stands in the same place."""
    places = {there.where(address): address for address in other}
    return {key: places[at.where(key)] for key in one if at.where(key) in places}


def by_name(match: Match, one: Arrays, other: Arrays) -> dict[str, str]:
    """Address in a → address in b, as the match says, and what the models give out."""
    said = match if callable(match) else lambda address: translated(match, address)
    names = {key: name for key in one if (name := named(said, key)) is not None}
    check_match(match, names, one, other)
    names = {key: name for key, name in names.items() if name in other}
    *_, root = one
    *_, end = other
    if root not in names and end not in names.values():
        names[root] = end
    return names


def named(said: Callable[[str], str | None], address: str) -> str | None:
    """What b calls an address; which call and which part of it are said alike on both sides."""
    whole = said(address)
    layer, rest = KEPT.fullmatch(address).groups()
    if whole is not None or not rest:
        return whole
    name = said(layer)
    return None if name is None else name + rest


def translated(match: Mapping[str, str], address: str) -> str | None:
    """By the entry that is the address, else by the first glob that means it."""
    if address in match:
        return match[address]
    for pattern, name in match.items():
        stars = re.fullmatch("(.*)".join(map(re.escape, pattern.split("*"))), address)
        if stars:
            found = iter(stars.groups())
            return re.sub(r"\*", lambda _, found=found: next(found, "*"), name)
    return None


def check_match(match: Match, names: Mapping[str, str], one: Arrays, other: Arrays) -> None:
    """Raises UsageError for a key that means nothing in a, and for a name that b does not have:
    one that is spelled out, or every one of a glob."""
    wrong = {key: name for key, name in names.items() if name not in other}
    right = {key: name for key, name in names.items() if name in other}
    for pattern in () if callable(match) else match:
        met = [key for key in one if named(lambda at, p=pattern: translated({p: p}, at), key)]
        if not met:
            raise UsageError(f"match: a has no {pattern!r}; {nearest(pattern, one)}")
        if not right.keys() & set(met) and wrong.keys() & set(met):
            name = next(wrong[key] for key in met if key in wrong)
            raise UsageError(f"match: b has no {name!r}; {nearest(name, other)}")
    if not right:
        raise UsageError(
            f"match pairs nothing: {example(one)} in a, {example(other)} in b, and it makes "
            f"{example(wrong.values())} of a's"
        )


def nearest(name: str, known: Arrays) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.0)
    return f"the nearest are {', '.join(map(repr, near))}"


def example(names: Any) -> str:
    return f"{next(iter(names), 'nothing')!r} …"


# --- where they part ----------------------------------------------------------------------------


def both_sides(
    a: keras.Model, b: Any, x: Any, row: Row, names: Mapping[str, str], one: Arrays, seen: Arrays
) -> tuple[list[Side], float | None]:
    """The sides whose layer can be computed anew, and how far apart the layer's inputs are."""
    layer, _, part = row.address.partition(":")
    named, _, part_there = names[row.address].partition(":")
    mine, theirs = one[row.address], seen[row.address]
    visit = visit_at(a, x, layer)
    if is_torch(b):
        peer = b.get_submodule(re.sub(r"#\d+", "", named))
        sides = [Side("a", a, x, visit, part, mine, theirs, peer)] if visit else []
        return sides, apart(visit and given_to(visit), torch_given(b, x, named, peer), True)
    other = visit_at(b, x, named)
    if not (visit and other):
        return [], None
    sides = [
        Side("b", b, x, other, part_there, theirs, mine, visit.layer),
        Side("a", a, x, visit, part, mine, theirs, other.layer),
    ]
    return sides, apart(given_to(visit), given_to(other), False)


def visit_at(model: keras.Model, x: Any, address: str) -> Any:
    """The call; None where it lies in a compiled loop, out of reach."""
    with suppress(KeyError):
        return called_at(model, x, address)


def apart(one: Sequence[np.ndarray] | None, other: Sequence[np.ndarray], torch: bool) -> Any:
    """How far the inputs of two layers are apart; None where they are not as many."""
    if not one or len(one) != len(other):
        return None
    pairs = zip(one, other, strict=True)
    return max(
        between("", mine, laid_out(theirs, mine, torch)).difference for mine, theirs in pairs
    )


# --- torch --------------------------------------------------------------------------------------


def is_torch(model: Any) -> bool:
    """Whether it is a torch module and no Keras model, which on Keras' torch backend is one too."""
    torch = sys.modules.get("torch")  # who has a module has loaded it
    return bool(torch) and not isinstance(model, keras.Model) and isinstance(model, torch.nn.Module)


def torch_values(module: Any, x: Any) -> dict[str, np.ndarray]:
    """What the modules of a torch network give out: name → float32 array, pictures channels last,
    in order of execution; the name of the whole is ''."""
    with hooked(module, "") as reads:
        run_torch(module, x)
    return {address.removeprefix("."): value for address, value in reads.items()}


def run_torch(module: Any, x: Any) -> None:
    """One call without gradients, on the device where the module is."""
    torch = sys.modules["torch"]
    like = next(module.parameters(), torch.zeros(()))

    def given(leaf: Any) -> Any:
        array = leaf if hasattr(leaf, "detach") else torch.from_numpy(np.array(as_plain(leaf)))
        array = array.to(like.device, like.dtype if array.is_floating_point() else None)
        return array.movedim(-1, 1) if array.ndim == 4 else array

    with torch.no_grad():
        if isinstance(x, dict):
            module(**{name: keras.tree.map_structure(given, leaf) for name, leaf in x.items()})
        else:
            several = tuple(x) if isinstance(x, list) else as_arguments(x)
            module(*keras.tree.map_structure(given, several))


def as_plain(leaf: Any) -> Any:
    return leaf if isinstance(leaf, np.ndarray | float | int) else as_array(leaf)


def torch_given(module: Any, x: Any, name: str, part: Any) -> list[np.ndarray]:
    """What a module inside was given, when it was called as `name` says: 'conv#2' is twice."""
    calls: list[list[np.ndarray]] = []

    def hear(_module: Any, args: tuple, kwargs: dict) -> None:
        calls.append([channels_last(tensor) for _, tensor in tensors([*args, *kwargs.values()])])

    handle = part.register_forward_pre_hook(hear, with_kwargs=True)
    try:
        run_torch(module, x)
    finally:
        handle.remove()
    call = re.search(r"#(\d+)$", name)
    return calls[int(call[1]) - 1 if call else 0]


def laid_out(value: np.ndarray, like: np.ndarray, torch: bool) -> np.ndarray:
    """A value of torch, which comes channels last, as Keras has it: with the last axis second where
    only that fits the shape, or where both do and it is far nearer, as in maps of attention."""
    if not torch or value.ndim < 3:
        return value
    other = np.moveaxis(value, -1, 1)
    far, far_other = (between("", like, way).difference for way in (value, other))
    return other if far_other < far / NEARER else value
