"""The gradient of what the UNet predicts, by any value inside of it: one backward pass through the
compiled step.

To every value that is asked for an offset of zero is added; the gradient by the offset is that by
the value. So it goes the way of an edit (xray/probe/interventions.py), on every backend that has
gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import ops

from stable_diffusion_tf.errors import UsageError

from .addresses import check_patterns, matches, patterns_of
from .hooks import addresses
from .interventions import Edit, Feed, Probe
from .session import looking, tell
from .survey import survey

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

By = Mapping[str, np.ndarray]  # address → array
INPUTS = {"x": 0, "context": 2}  # name → which of the arrays that the UNet takes


class Gradient(NamedTuple):
    """value: the sum of what `of` made. values, gradients: address → array, as the layers give
    them out, and the derivative of the value by each of their numbers."""

    value: float
    values: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


def gradient(
    sd: "StableDiffusion", of: Callable[..., Any], at: str | Sequence[str]
) -> Callable[..., Gradient]:
    """The gradient of a number, made of the predicted noise, by values inside the UNet.

    of: a pure function on `keras.ops` of the noise (b, h, w, 4), and of the arrays that a call
        hands on as `given`; what it returns is summed, so numbers of the pictures, (b,), keep
        their gradients apart. at: a glob of taps of the UNet, or several; `x` and `context` are
        what goes in.

    Returns a function of the arguments of `sd.predict_noise` (latent, t, context), and of
    given: the other arguments of `of`; offsets: what is added to values before they go on, by
    address, zero where there is none; guidance. Compiled once for each shape. The edits of an
    instrument act; those that go by steps cannot. Raises UsageError for a pattern that matches
    nothing, and on OpenVINO.

        norm = xray.gradient(sd, of=lambda eps: ops.sum(eps**2), at="unet.*.attn2.probs")
        value, probs, by_probs = norm(step.x, step.t, context)
    """
    check_gradients(sd)
    network = sd.network("unet")
    inputs = [name for name in patterns_of(at) if name in INPUTS]
    patterns = tuple(pattern for pattern in patterns_of(at) if pattern not in INPUTS)
    check_patterns(patterns, addresses(network), tuple(INPUTS))
    edits = [*getattr(sd, "rules_for", nothing)("unet")[1]]
    shift = Edit(patterns, ops.add, source=Feed())
    function = looking(network, [Probe(patterns)], [*edits, shift], around=backward(of))
    shapes: dict[tuple, dict[str, tuple]] = {}

    def zeros(arrays: Sequence[np.ndarray]) -> By:
        known = tuple(array.shape for array in arrays)
        if known not in shapes:
            found = survey(network, arrays)
            shapes[known] = {name: known[INPUTS[name]] for name in inputs} | {
                tap.address: tap.shape
                for tap in found
                if any(matches(pattern, tap.address) for pattern in patterns)
            }
        return {at: np.zeros(shape, np.float32) for at, shape in shapes[known].items()}

    def call(
        latent: np.ndarray,
        t: int | np.ndarray,
        context: np.ndarray,
        given: Sequence[np.ndarray] = (),
        offsets: By | None = None,
        guidance: float = 1.0,
    ) -> Gradient:
        arrays = sd.unet_inputs(latent, t, context, guidance)
        told = zeros(arrays)
        for at, array in (offsets or {}).items():
            if at not in told:
                raise UsageError(f"no gradient by {at!r} was asked for; it is by {', '.join(told)}")
            told[at] = np.broadcast_to(np.asarray(array, np.float32), told[at].shape)
        shifts = [*(tell(edit, None) for edit in edits), {"given": told}]
        (value, gradients), values, _ = function(*arrays, list(given), shifts)
        went_in = {name: arrays[INPUTS[name]] + told[name] for name in inputs}
        return Gradient(float(value), went_in | values, gradients)

    return call


def check_gradients(sd: "StableDiffusion") -> None:
    """Raises UsageError where the backend has none."""
    if sd.backend == "openvino":
        raise UsageError("OpenVINO has no gradients; take --backend tensorflow, jax or torch")


def nothing(_: str) -> tuple:
    """The probes and edits of a model without any."""
    return (), ()


# --- backwards ---------------------------------------------------------------------------------

Summed = Callable[[dict], tuple[Any, Any]]  # offsets → the number, and what was read on the way


def with_tensorflow(summed: Summed, offsets: dict) -> tuple:
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(offsets)
        value, found = summed(offsets)
    return value, found, tape.gradient(value, offsets, unconnected_gradients="zero")


def with_jax(summed: Summed, offsets: dict) -> tuple:
    import jax

    (value, found), gradients = jax.value_and_grad(summed, has_aux=True)(offsets)
    return value, found, gradients


def with_torch(summed: Summed, offsets: dict) -> tuple:
    import torch

    with torch.enable_grad():
        leaves = {at: offset.detach().requires_grad_() for at, offset in offsets.items()}
        value, found = summed(leaves)
        by = torch.autograd.grad(value, [*leaves.values()], materialize_grads=True)
    return value, found, dict(zip(leaves, by, strict=True))


BACKWARD = {"tensorflow": with_tensorflow, "jax": with_jax, "torch": with_torch}


def backward(of: Callable) -> Callable[[Callable], Callable]:
    """Of a call that gives out the noise and what was read, one that gives out the number made of
    the noise and its gradients, and what was read. The last edit's offsets are what it is by."""

    def around(call: Callable) -> Callable:
        def both_ways(*arguments: Any) -> tuple:
            *arrays, given, told = arguments

            def summed(offsets: dict) -> tuple:
                shifted = [*arrays]
                for name in INPUTS.keys() & offsets.keys():
                    shifted[INPUTS[name]] += offsets[name]
                noise, found = call(*shifted, [*told[:-1], {"given": offsets}])
                return ops.sum(ops.cast(of(ops.cast(noise, "float32"), *given), "float32")), found

            way = BACKWARD[keras.backend.backend()]
            value, found, gradients = way(summed, told[-1]["given"])
            return (value, gradients), found

        return both_ways

    return around
