"""Read or replace any value inside a model, at full speed.

Probes and edits act inside the traced function: what is read is one more output of the compiled
function, what changes from step to step one more input, so TensorFlow, JAX and PyTorch run it as
fast as they run the model. Where a probe and an edit meet, the probe reads what the edit left.

Reading changes nothing but, on some machines, last bits, as any other compiled function does: that
is tested on all three backends with every value of the phantom read, against how far rounding
reaches there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from stable_diffusion_tf.compiled import ArrayFunction, compiled
from stable_diffusion_tf.errors import UsageError

from .addresses import TapInfo, check_patterns, matches, patterns_of, plain
from .hooks import Meet, lies_in, unmet, watching
from .interventions import Edit, Feed, Mean, PerStep, Probe, Reads, as_edits, as_probes, take
from .survey import in_plain_sight, spec, survey, taps
from .trace import Trace, every_pattern

__all__ = [
    "Edit",
    "Feed",
    "Mean",
    "PerStep",
    "Probe",
    "Reads",
    "TapInfo",
    "capture",
    "take",
    "taps",
]

Rule = Probe | Edit
NO_STEP = "the edit of {!r} goes by the steps of a run: say which this is, step=0"


def capture(
    model: keras.Model,
    inputs: Any,
    read: str | Probe | Sequence[str | Probe] = (),
    edits: Edit | Sequence[Edit] = (),
) -> tuple[Any, Reads]:
    """One call of any Keras 3 model: what it gives out, and what was read in it, NumPy arrays.

    inputs: an array, a list or a dict is handed to the model as it is; a tuple, as several
    arguments. Raises UsageError for a pattern that matches nothing.
    """
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    probes, edits = as_probes(read), as_edits(edits)
    known = [tap.address for tap in survey(model, tree.map_structure(spec, inputs))]
    check_patterns(every_pattern([*probes, *edits]), known)
    reads = Reads()
    return watched(model, probes, edits, reads)(*inputs, step=0), reads


def meant_for(known: Sequence[str], rules: Sequence[Rule]) -> list[Rule]:
    """The rules that mean a layer of these."""
    return [rule for rule in rules if any(map(layers_meant([rule]), known))]


def layers_meant(rules: Sequence[Rule]) -> Callable[[str], bool]:
    """Whether some rule means a value of the layer at an address."""
    layers = [plain(pattern) for pattern in every_pattern(rules)]
    return lambda address: any(matches(layer, address) for layer in layers)


# --- the compiled function ---------------------------------------------------------------------


def watched(
    network: keras.Model,
    probes: Sequence[Probe],
    edits: Sequence[Edit],
    reads: Reads,
    meet: Meet = unmet,
) -> ArrayFunction:
    """The network as a compiled function that fills `reads` whenever it is called: with the arrays,
    and `step=`, the index of the step of a run, by which edits may go. `meet` is told of every
    layer, in order of execution, whenever the network is traced."""
    return filling(reads, looking(network, probes, edits, meet), edits)


def looking(
    network: keras.Model,
    probes: Sequence[Probe],
    edits: Sequence[Edit],
    meet: Meet = unmet,
    around: Callable[[Callable], Callable] = lambda call: call,
) -> ArrayFunction:
    """The network as a compiled function of its arrays and of what changes from step to step, as
    `tell` says it for each edit: what it gives out, what was read, and the axes of that. `around`
    makes of the call another with the like result, which is compiled in its place."""
    patterns = every_pattern([*probes, *edits])
    inputs = any(":in" in pattern for pattern in patterns)
    reads, edited = (layers_meant(rules) for rules in (probes, edits))
    dims: dict[str, tuple[str, ...]] = {}
    order: list[str] = []  # of execution; a compiler may hand the values back in another

    def call(*arguments: Any) -> tuple[Any, dict[str, Any]]:
        *arrays, told = arguments
        trace = Trace(probes, edits, told)
        with (
            watching(network, trace.see, inputs, meet) as looped,
            in_plain_sight(network, reads, edited),
        ):
            out = called(network, arrays, trace)
        found = trace.finish()
        dims.update(trace.dims)
        order[:] = [address for address in found if not lies_in(address, looped)]
        return out, {address: found[address] for address in order}

    function = compiled(network, around(call))

    def run(*arguments: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
        out, found = function(*arguments)
        return out, {address: found[address] for address in order}, dims

    return run


def filling(reads: Reads, function: ArrayFunction, edits: Sequence[Edit]) -> ArrayFunction:
    """What `looking` compiled as a function of the arrays and the step, which fills `reads`."""

    def run(*arrays: Any, step: int | None = None) -> Any:
        out, found, dims = function(*arrays, [tell(edit, step) for edit in edits])
        reads.update(found)
        reads.dims.update(dims)
        return out

    return run


def called(network: keras.Model, arrays: Sequence[Any], trace: Trace) -> Any:
    try:
        return network(*arrays, training=False)
    except UsageError:
        raise trace.error from None


def tell(edit: Edit, step: int | None) -> dict[str, Any]:
    """What changes from step to step: whether the edit acts, and the values that it takes."""
    acts = acts_at(edit, step)
    told: dict[str, Any] = {} if edit.steps is None else {"on": np.asarray(acts)}
    if edit.source is not None:
        told["given"] = given(edit, step if acts else 0)
    return told


def acts_at(edit: Edit, step: int | None) -> bool:
    """Whether the edit acts. Raises UsageError where it goes by steps and this is none."""
    if edit.steps is None:
        return True
    if step is None:
        raise UsageError(NO_STEP.format(edit.pattern))
    return step in edit.steps


def given(edit: Edit, step: int | None) -> dict[str, np.ndarray]:
    """The source's values at a step, by address."""
    source = edit.source.values if isinstance(edit.source, Feed) else edit.source
    patterns = patterns_of(edit.pattern)
    if source is None:
        raise UsageError(
            f"the feed of the edit of {edit.pattern!r} is empty; fill it: feed(values)"
        )
    if not isinstance(source, Mapping):
        if step is None:
            raise UsageError(NO_STEP.format(edit.pattern))
        if step >= len(source):
            raise UsageError(
                f"the edit of {edit.pattern!r} finds no such step in its film of {len(source)}"
            )
        source = source[step]
    found = {key: source[key] for key in source if any(matches(p, key) for p in patterns)}
    if not found:
        raise UsageError(f"the source of the edit holds nothing under {edit.pattern!r}; probe it")
    return found
