"""One call of a network as it is traced: what the probes read, what the edits replace."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from keras import ops

from stable_diffusion_tf.errors import UsageError

from .addresses import dims_of, matches, part_axis, patterns_of, plain
from .interventions import Edit, Mean, Probe

# what TensorFlow and JAX say of a tensor that has no numbers yet
NOT_AN_ARRAY = ("Cannot convert a symbolic", "TracerArrayConversionError")


def said(reduce: Any) -> str:
    """A probe's reduction in a key: 'mean head', 'whole', a function's name."""
    if isinstance(reduce, Mean):
        return " ".join(("mean", *reduce.over))
    return "whole" if reduce is None else getattr(reduce, "__name__", "function").strip("<>")


def every_pattern(rules: Iterable[Probe | Edit]) -> list[str]:
    return [pattern for rule in rules for pattern in patterns_of(rule.pattern)]


class Trace:
    """Takes every value in turn, by `see`, and hands back what is to go on.

    told: for each edit what changes from step to step, as tensors: 'on', whether it acts, and
    'given', address → the value that it takes.
    """

    def __init__(self, probes: Sequence[Probe], edits: Sequence[Edit], told: Sequence[dict]):
        self.probes, self.edits, self.told = probes, edits, told
        self.parts: dict[str, tuple[Probe, list]] = {}
        self.dims: dict[str, tuple[str, ...]] = {}
        self.seen: set[str] = set()
        self.used: set[str] = set()
        self.rows: dict[str, int] = {}  # queries that have come by, where they come in parts
        self.error: UsageError | None = None

    def see(self, address: str, value: Any) -> Any:
        """The value that goes on. An error is noted: on its way up through the layers Keras makes
        a page of its one line."""
        try:
            return self.act(address, value)
        except UsageError as error:
            self.error = error
            raise

    def act(self, address: str, value: Any) -> Any:
        self.seen.add(plain(address))
        for edit, told in zip(self.edits, self.told, strict=True):
            if self.means(edit, address):
                value = self.edited(edit, told, address, value)
        noted = []
        for probe in self.probes:
            if self.means(probe, address) and probe.reduce not in noted:
                key = address if not noted else f"{address}|{said(probe.reduce)}"
                self.note(probe, key, address, value)
                noted.append(probe.reduce)
        if len(value.shape) > 1:
            axis = part_axis(dims_of(address, len(value.shape)))
            self.rows[address] = self.rows.get(address, 0) + value.shape[axis]
        return value

    def means(self, rule: Probe | Edit, address: str) -> bool:
        found = [pattern for pattern in patterns_of(rule.pattern) if matches(pattern, address)]
        self.used.update(found)
        return bool(found)

    # --- reading -------------------------------------------------------------------------------

    def note(self, probe: Probe, key: str, address: str, value: Any) -> None:
        """Keep a value under a key: its address, or where several probes make different things
        of it, for all but the first `address|what is made of it`."""
        dims = dims_of(address, len(value.shape))
        if isinstance(probe.reduce, Mean):  # it may be taken part by part
            value, dims = probe.reduce(value, dims), probe.reduce.left(dims)
        self.parts.setdefault(key, (probe, []))[1].append(value)
        self.dims[key] = dims

    def finish(self) -> dict[str, Any]:
        """What was read, by address. Raises UsageError for a pattern that names a layer, but an
        input, output or call of it that is not there."""
        for pattern in every_pattern([*self.probes, *self.edits]):
            layer = plain(pattern)
            if pattern not in self.used and any(matches(layer, seen) for seen in self.seen):
                raise UsageError(f"{pattern!r}: {layer} is there, but has no such value")
        return {key: self.whole(key, *found) for key, found in self.parts.items()}

    def whole(self, key: str, probe: Probe, parts: list) -> Any:
        """A value that came in parts, in one piece, reduced as the probe says."""
        dims, value = self.dims[key], parts[0]
        if len(parts) > 1:
            averaged = isinstance(probe.reduce, Mean) and "query" in probe.reduce.over
            value = sum(parts) / len(parts) if averaged else ops.concatenate(parts, part_axis(dims))
        if probe.reduce is None or isinstance(probe.reduce, Mean):
            return value
        del self.dims[key]  # nobody knows what a function of the user's makes of them
        return probe.reduce(value)

    # --- replacing -----------------------------------------------------------------------------

    def edited(self, edit: Edit, told: dict, address: str, value: Any) -> Any:
        given = [self.given(told["given"], address, value)] if "given" in told else []
        new = made_by(edit, address, value, *given)
        if tuple(new.shape) != tuple(value.shape):
            raise UsageError(
                f"the edit of {address} made {tuple(new.shape)} of {tuple(value.shape)}; "
                f"it must keep the shape"
            )
        where = region(edit, address, tuple(value.shape))
        if "on" in told:
            where = told["on"] if where is None else ops.logical_and(told["on"], where)
        new = ops.cast(new, value.dtype)
        return new if where is None else ops.where(where, new, value)

    def given(self, given: dict, address: str, value: Any) -> Any:
        """The source's value, or that part of it which belongs to these queries, in the value's
        type: sources hold float32."""
        if address not in given:
            raise UsageError(f"the source of the edit has no {address}; probe it there too")
        new, shape = given[address], tuple(value.shape)
        axis = part_axis(dims_of(address, len(shape)))
        if len(new.shape) == len(shape) > 1 and new.shape[axis] > shape[axis]:
            first = self.rows.get(address, 0)
            rows = [slice(None)] * len(shape)
            rows[axis] = slice(first, first + shape[axis])
            new = new[tuple(rows)]
        if tuple(new.shape) != shape:
            raise UsageError(
                f"the source holds {tuple(new.shape)} for {address}, and {shape} is wanted: "
                f"probe it whole, at the same size"
            )
        return ops.cast(new, value.dtype)


def made_by(edit: Edit, address: str, *values: Any) -> Any:
    """What the edit's function makes of a value, a tensor. Raises UsageError for what a function
    does that was written for other arrays."""
    try:
        new = edit.fn(*values)
    except Exception as error:
        if not any(said in f"{type(error).__name__} {error}" for said in NOT_AN_ARRAY):
            raise
        raise UsageError(
            f"the edit of {address} hands a tensor to NumPy while the model is traced; write its "
            f"function with keras.ops"
        ) from error
    if new is None:
        raise UsageError(f"the edit of {address} returned None; its function returns the new value")
    return ops.convert_to_tensor(new)


def region(edit: Edit, address: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Where an edit acts, a mask that broadcasts over the value; None: everywhere.

    Raises UsageError where the value has no such axis, or the axis no such index.
    """
    dims, mask = dims_of(address, len(shape)), None
    limits = {"head": edit.heads, "token": edit.tokens, "half": edit.rows(shape[0])}
    for name, indices in limits.items():
        if indices is None:
            continue
        if name not in dims:
            raise UsageError(f"{address} has no axis of {name}s: {dims}")
        axis = dims.index(name)
        if wrong := [i for i in indices if not -shape[axis] <= i < shape[axis]]:
            raise UsageError(f"{address} has {shape[axis]} {name}s; there is no {wrong[0]}")
        along = np.zeros(shape[axis], bool)
        along[list(indices)] = True
        along = along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        mask = along if mask is None else mask & along
    return mask
