"""`instrument`: a StableDiffusion beside another, over the same networks, that reads and edits."""

from collections.abc import Mapping, Sequence
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
from .probe import acts_at, given, meant_for, watched
from .rules import LOOP, Edit, Feed, Probe, Reads, as_edits, as_probes
from .survey import skeleton_of
from .trace import Trace, every_pattern
from .watching import addresses


def instrument(
    sd: StableDiffusion,
    probes: str | Probe | Sequence[str | Probe] = (),
    edits: Edit | Sequence[Edit] = (),
) -> "Instrument":
    """A StableDiffusion that shares the networks of `sd` and owns its compiled functions: whatever
    it does goes through the probes and edits, and `sd` itself is as it was.

    `.reads` holds what the last call of each network read. An instrument of an instrument has the
    rules of both, the inner ones first. Kept, it compiles once. A glob is taken for a Probe.
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
        function = watched(network, *self.rules_for(part), self.reads)
        if part == "unet":
            return function
        return lambda *arrays: function(*arrays, step=0)  # before the first step, or after the last

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
