"""`instrument`: a StableDiffusion beside another, over the same networks, that reads and edits."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.compiled import ArrayFunction
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.pipeline import NETWORKS
from stable_diffusion_tf.sampling import Sampler

from .addresses import check_patterns, patterns_of
from .hooks import addresses
from .interventions import LOOP, Edit, Feed, Mean, Probe, Reads, as_edits, as_probes
from .session import acts_at, filling, given, looking, meant_for
from .survey import skeleton_of
from .trace import Trace, every_pattern
from .words import is_known

KEPT = 8  # compiled functions with rules that a model keeps for the next instrument


def instrument(
    sd: StableDiffusion,
    probes: str | Probe | Sequence[str | Probe] = (),
    edits: Edit | Sequence[Edit] = (),
) -> "Instrument":
    """A StableDiffusion that shares the networks of `sd` and owns its compiled functions: whatever
    it does goes through the probes and edits, and `sd` itself is as it was.

    `.reads` holds what the last call of each network read. An instrument of an instrument has the
    rules of both, the inner ones first. It compiles once, and so do instruments of one model whose
    rules are alike but for their steps and sources. A glob is taken for a Probe.
    Raises UsageError for a pattern that matches nothing.
    """
    return Instrument(sd, as_probes(probes), as_edits(edits))


class Instrument(StableDiffusion):
    """What `instrument` returns."""

    def __init__(self, sd: StableDiffusion, probes: Sequence[Probe], edits: Sequence[Edit]):
        vars(self).update(vars(sd))  # networks, vocabulary and all else are shared, not copied
        self.family.add(self)
        self.functions = {}
        self.plain: StableDiffusion = getattr(sd, "plain", sd)
        self.probes: tuple[Probe, ...] = (*getattr(sd, "probes", ()), *probes)
        self.edits: tuple[Edit, ...] = (*getattr(sd, "edits", ()), *edits)
        self.reads = Reads()
        self.known = {part: addresses(skeleton_of(sd, part)) for part in NETWORKS}
        taps = [address for found in self.known.values() for address in found]
        check_patterns(every_pattern(self.probes), taps)
        inside = [pattern for pattern in every_pattern(self.edits) if pattern not in LOOP]
        check_patterns(inside, taps, LOOP)
        check_halves(self)

    def __repr__(self) -> str:
        rules = f"{len(self.probes)} probes, {len(self.edits)} edits"
        return f"{self.plain!r} with {rules}"

    def rules_for(self, part: str) -> tuple[list[Probe], list[Edit]]:
        """The probes and the edits that mean a value of this part."""
        return tuple(meant_for(self.known[part], rules) for rules in (self.probes, self.edits))

    def function(self, part: str) -> ArrayFunction:
        """A part that no rule means is the very function of the model without rules."""
        return super().function(part) if any(self.rules_for(part)) else self.plain.function(part)

    def compile(self, part: str, network: keras.Model) -> ArrayFunction:
        probes, edits = self.rules_for(part)
        function = filling(self.reads, self.compiled_once(part, network, probes, edits), edits)
        if part == "unet":
            return function
        return lambda *arrays: function(*arrays, step=0)  # before the first step, or after the last

    def compiled_once(
        self, part: str, network: keras.Model, probes: list[Probe], edits: list[Edit]
    ) -> ArrayFunction:
        """Compiled anew, or what an instrument with the like rules has compiled before."""
        key, kept = (part, *map(compiled_as, [*probes, *edits])), self.plain.functions
        if any(rule is None for rule in key):
            return looking(network, probes, edits)
        kept[key] = kept.pop(key, None) or looking(network, probes, [*map(without_source, edits)])
        for old in [old for old in kept if len(old) > 1][:-KEPT]:
            del kept[old]
        return kept[key]

    def call_unet(self, step: int | None, *arrays: np.ndarray) -> np.ndarray:
        if any(self.rules_for("unet")):
            return self.function("unet")(*arrays, step=step)
        return self.plain.call_unet(step, *arrays)

    def sampler(
        self,
        context: np.ndarray,
        uncond: np.ndarray,
        steps: int,
        guidance: float,
        eta: float,
        rng: np.random.Generator,
    ) -> Sampler:
        check_steps(self.edits, steps)
        return super().sampler(context, uncond, steps, guidance, eta, rng)

    def pass_on(self, name: str, step: int, value: np.ndarray) -> np.ndarray:
        for edit in self.edits:
            if name in patterns_of(edit.pattern) and acts_at(edit, step):
                value = edit_array(edit, name, step, value)
        return value


# --- what is compiled once for several instruments --------------------------------------------


def compiled_as(rule: Probe | Edit) -> tuple | None:
    """All of a rule that is compiled in: rules that are equal in it share their function. The steps
    and the source are handed in. None where nobody can know what its function does next time."""
    if (function := told_by_itself(rule)) is None:
        return None
    patterns = tuple(patterns_of(rule.pattern))
    if isinstance(rule, Probe):
        return patterns, function
    along = [None if at is None else tuple(map(int, at)) for at in (rule.heads, rule.tokens)]
    return patterns, function, rule.half, *along, rule.steps is None, rule.source is None


def told_by_itself(rule: Probe | Edit) -> tuple | None:
    """A rule's function as what decides on its result; None where that may lie outside of it."""
    function = rule.reduce if isinstance(rule, Probe) else rule.fn
    if isinstance(function, Mean):
        return "mean", function.over
    if function is None or is_known(function):
        return "known", function
    code = getattr(function, "__code__", None)
    if not code or code.co_names or code.co_freevars or any(map(inspect.iscode, code.co_consts)):
        return None
    bound = function.__defaults__ or function.__kwdefaults__ or inspect.ismethod(function)
    return None if bound else ("code", code)


def without_source(edit: Edit) -> Edit:
    """As it is compiled, so that what is kept holds on to no film."""
    source = None if edit.source is None else Feed()
    return replace(edit, source=source, steps=None if edit.steps is None else ())


def edit_array(edit: Edit, name: str, step: int, value: np.ndarray) -> np.ndarray:
    """A value of the loop after an edit, as inside of a network."""
    told: dict[str, Any] = {}
    if edit.source is not None:
        told["given"] = {key: np.asarray(array) for key, array in given(edit, step).items()}
    new = Trace([], [edit], [told]).edited(edit, told, name, ops.convert_to_tensor(value))
    return ops.convert_to_numpy(new)


# --- what cannot be done -----------------------------------------------------------------------


def check_steps(edits: Sequence[Edit], steps: int) -> None:
    """Raise UsageError for an edit of a step that a run of so many does not have."""
    for edit in edits:
        if wrong := [i for i in edit.steps or () if not 0 <= i < steps]:
            raise UsageError(f"no step {wrong[0]} in a run of {steps}: they are 0 … {steps - 1}")
        source = edit.source
        if not isinstance(source, Mapping | Feed | None) and len(source) < needed(edit, steps):
            raise UsageError(
                f"the edit of {edit.pattern!r} finds no such step in its film of {len(source)}"
            )


def needed(edit: Edit, steps: int) -> int:
    """How many steps of its source an edit asks for in a run; one at least, for its shapes."""
    return steps if edit.steps is None else max(edit.steps, default=0) + 1


def check_halves(seen: Instrument) -> None:
    if not seen.unet_config.time_cond_proj_dim:
        return
    if any(edit.half for edit in seen.edits):
        raise UsageError("a latent consistency model has no two halves: leave out half=")
    if {"eps_uncond", "eps_cond"} & {*every_pattern(seen.edits)}:
        raise UsageError("a latent consistency model predicts the noise once: edit 'eps'")
