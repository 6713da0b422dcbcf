"""Read or replace any value inside a model, at full speed.

Probes and edits act inside the traced function: what is read is one more output of the compiled
function, what changes from step to step one more input, so TensorFlow, JAX and PyTorch run it as
fast as they run the model. Where a probe and an edit meet, the probe reads what the edit left.

Reading changes no bit of the result: that is tested on the CPU of all three backends, with every
value of the phantom read. A compiler that fuses otherwise elsewhere may move the last bits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import tree

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.compiled import ArrayFunction, compiled
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.pipeline import NETWORKS

from .addresses import TapInfo, check_patterns, matches, patterns_of, plain
from .rules import Edit, Mean, Probe, Reads, take
from .taps import in_plain_sight, skeleton_of, spec, survey, taps
from .trace import Trace, every_pattern
from .watching import addresses, lies_in, watching

__all__ = ["Edit", "Mean", "Probe", "Reads", "TapInfo", "capture", "probing", "take", "taps"]

Rule = Probe | Edit


def capture(
    model: keras.Model, inputs: Any, probes: Sequence[Probe] = (), edits: Sequence[Edit] = ()
) -> tuple[Any, Reads]:
    """One call of any Keras 3 model: what it gives out, and what the probes read, NumPy arrays.

    inputs: an array, a list or a dict is handed to the model as it is; a tuple, as several
    arguments. Raises UsageError for a pattern that matches nothing.
    """
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    known = [tap.address for tap in survey(model, tree.map_structure(spec, inputs))]
    check_patterns(every_pattern([*probes, *edits]), known)
    reads = Reads()
    return watched(model, probes, edits, reads, lambda _: 0)(*inputs), reads


@contextmanager
def probing(
    sd: StableDiffusion,
    probes: Sequence[Probe] = (),
    edits: Sequence[Edit] = (),
    steps: int | None = None,
) -> Iterator[Reads]:
    """Inside, whatever the model does goes through the probes and edits; what is yielded holds
    what the last call of each network read.

    steps: of the run, needed where an edit is limited to some or takes its values from a film.
    Raises UsageError for a pattern that matches nothing, and for a step that there is not.
    """
    check_steps(edits, steps)
    check_halves(sd, edits)
    known = {part: addresses(skeleton_of(sd, part)) for part in NETWORKS}
    check_patterns(every_pattern([*probes, *edits]), [a for found in known.values() for a in found])
    times = [] if steps is None else sd.timesteps(steps).tolist()
    index_of = {
        "unet": lambda arrays: times.index(t) if (t := int(arrays[1][0])) in times else None
    }
    reads = Reads()

    def compile_part(part: str, network: keras.Model) -> ArrayFunction:
        read, edit = (meant_for(known[part], rules) for rules in (probes, edits))
        if not read and not edit:
            return compiled(network)
        return watched(network, read, edit, reads, index_of.get(part, lambda _: 0))

    touched = [part for part in known if meant_for(known[part], [*probes, *edits])]
    before = {part: sd.functions.pop(part) for part in touched if part in sd.functions}
    usual, sd.compile = sd.compile, compile_part
    try:
        yield reads
    finally:
        sd.compile = usual
        for part in touched:
            sd.functions.pop(part, None)
        sd.functions.update({part: made for part, made in before.items() if part in sd.networks})


def meant_for(known: Sequence[str], rules: Sequence[Rule]) -> list[Rule]:
    """The rules that mean a layer of these."""
    return [
        rule
        for rule in rules
        if any(matches(plain(p), address) for p in patterns_of(rule.pattern) for address in known)
    ]


def check_steps(edits: Sequence[Edit], steps: int | None) -> None:
    for edit in edits:
        timed = edit.steps is not None or not isinstance(edit.source, Mapping | None)
        if timed and steps is None:
            raise UsageError(f"the edit of {edit.pattern!r} goes by steps: say steps= of the run")
        if wrong := [i for i in edit.steps or () if not 0 <= i < steps]:
            raise UsageError(f"no step {wrong[0]} in a run of {steps}: they are 0 … {steps - 1}")


def check_halves(sd: StableDiffusion, edits: Sequence[Edit]) -> None:
    if sd.unet_config.time_cond_proj_dim and any(edit.half for edit in edits):
        raise UsageError("a latent consistency model has no two halves: leave out half=")


# --- the compiled function ---------------------------------------------------------------------


def watched(
    network: keras.Model,
    probes: Sequence[Probe],
    edits: Sequence[Edit],
    reads: Reads,
    step_of: Callable[[tuple], int | None],
) -> ArrayFunction:
    """The network as a compiled function that fills `reads` whenever it is called.

    step_of: the arrays of a call → the index of the step; None where it belongs to no run.
    """
    patterns = every_pattern([*probes, *edits])
    inputs = any(":in" in pattern for pattern in patterns)
    outputs = [plain(pattern) for pattern in patterns]
    order: list[str] = []  # of execution; a compiler may hand the values back in another

    def call(*arguments: Any) -> tuple[Any, dict[str, Any]]:
        *arrays, told = arguments
        trace = Trace(probes, edits, told)
        with (
            watching(network, trace.see, inputs) as looped,
            in_plain_sight(network, lambda tap: any(matches(p, tap) for p in outputs)),
        ):
            out = called(network, arrays, trace)
        found = trace.finish()
        reads.dims.update(trace.dims)
        order[:] = [address for address in found if not lies_in(address, looped)]
        return out, {address: found[address] for address in order}

    function = compiled(network, call)

    def run(*arrays: Any) -> Any:
        index = step_of(arrays)
        out, found = function(*arrays, [tell(edit, index) for edit in edits])
        reads.update({address: found[address] for address in order})
        return out

    return run


def called(network: keras.Model, arrays: Sequence[Any], trace: Trace) -> Any:
    try:
        return network(*arrays, training=False)
    except UsageError:
        raise trace.error from None


def tell(edit: Edit, index: int | None) -> dict[str, Any]:
    """What changes from step to step: whether the edit acts, and the values that it takes."""
    acts = edit.steps is None or index in edit.steps
    told: dict[str, Any] = {} if edit.steps is None else {"on": np.asarray(acts)}
    if edit.source is not None:
        told["given"] = given(edit, index if acts else 0)
    return told


def given(edit: Edit, index: int | None) -> dict[str, np.ndarray]:
    """The source's values at a step, by address."""
    source, patterns = edit.source, patterns_of(edit.pattern)
    if not isinstance(source, Mapping):
        if index is None or index >= len(source):
            raise UsageError(
                f"the edit of {edit.pattern!r} finds no such step in its film of {len(source)}"
            )
        source = source[index]
    found = {key: source[key] for key in source if any(matches(p, key) for p in patterns)}
    if not found:
        raise UsageError(f"the source of the edit holds nothing under {edit.pattern!r}; probe it")
    return found
