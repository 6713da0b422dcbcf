"""Why do two ports part at a layer? Each guess is tried: one thing is changed and the layer
computed anew.

A guess counts only if the layer then agrees with the other side, ten times nearer than before at
least. Nothing is written to: other weights stand in for a layer's own in a `keras.StatelessScope`,
other attributes in a twin of the layer.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from stable_diffusion_tf.compiled import is_float
from xray.probe.hooks import Visit

from .comparison import between
from .structure import as_array, called_at, eagerly

NEARER = 10  # a guess must bring the two nearer by such a factor
EPSILONS = (1e-3, 1e-5, 1e-6, 1e-12)
EPSILON_NAMES = ("epsilon", "eps", "variance_epsilon")
ACTIVATION_NAMES = ("activation", "act")
ACTIVATIONS: dict[str, Callable] = {
    "the exact GELU": partial(keras.activations.gelu, approximate=False),
    "the tanh GELU": partial(keras.activations.gelu, approximate=True),
    "the quick GELU": lambda x: x * ops.sigmoid(1.702 * x),
}
ORDERS: dict[str, Callable] = {  # of the last axis
    "in reverse order": lambda x: ops.flip(x, axis=-1),
    "with its halves exchanged": lambda x: ops.roll(x, x.shape[-1] // 2, axis=-1),
}
LAYOUTS = {  # of a value, (b, h, w, c) or (b, c, h, w)
    "with its first channel axis last": (0, 2, 3, 1),
    "with its last channel axis first": (0, 3, 1, 2),
    "with rows and columns exchanged": (0, 2, 1, 3),
}


class Side(NamedTuple):
    """One of the two models at the layer where they part.

    name: 'a' or 'b'; x: what the model was given; visit: the layer and what it was given; part: of
    its output, '' for the whole; value: what it gave; wanted: what the other side has; peer: the
    other side's layer, of Keras or of torch.
    """

    name: str
    model: keras.Model
    x: Any
    visit: Visit
    part: str
    value: np.ndarray
    wanted: np.ndarray
    peer: Any


Guesses = Iterator[tuple[str, Callable[[], Any]]]  # what is changed, what then comes out


def cause_of(sides: Sequence[Side], before: float, tolerance: float) -> str | None:
    """The first of `CAUSES` that explains how two sides part, in a sentence; None where none does.

    sides: those whose layer can be computed anew. before: by what share they part.
    """
    for name, test in CAUSES:
        for side in sides:
            tried = [(tried_out(side, guess), told) for told, guess in test(side)]
            after, told = min(tried, default=(np.inf, ""))
            if after < np.inf and after <= min(tolerance, before / NEARER):
                nearer = f"{after:.0e} (before: {before:.0e})"
                return f"{name}: {told}, {side.name} agrees to {nearer}"
    return None


def tried_out(side: Side, guess: Callable[[], Any]) -> float:
    """How far a guess then is from the other side; infinitely, where it cannot be computed."""
    try:
        value = eagerly(guess)()
    except Exception:  # a layer may refuse what it was not made for, as backends do, each its way
        return np.inf
    return between("", as_array(value), side.wanted).difference


def again(side: Side, layer: Any = None, given: tuple | None = None, weights: Sequence = ()) -> Any:
    """What the layer gives out with one thing changed: a twin of it, what it is given (args,
    kwargs), or some of its weights, pairs (variable, value)."""
    args, kwargs = given or (side.visit.args, side.visit.kwargs)
    with keras.StatelessScope(state_mapping=weights, initialize_variables=False):
        out = (layer or side.visit.layer)(*args, **kwargs)
    parts = {".".join(map(str, path)): value for path, value in tree.flatten_with_path(out)}
    return parts[side.part]


def twin(layer: Any, name: str, value: Any) -> Any:
    """A layer with the same weights and one other attribute. `copy.copy` would save and load it."""
    made = object.__new__(type(layer))
    vars(made).update(vars(layer) | {name: value})
    return made


# --- the guesses --------------------------------------------------------------------------------


def layouts(side: Side) -> Guesses:
    """Channels first on one side, or rows for columns."""
    if side.value.ndim == 4:
        for told, axes in LAYOUTS.items():
            yield told, partial(np.transpose, side.value, axes)


def kernels(side: Side) -> Guesses:
    """The weights of two and more axes: each order of the axes that keeps the shape, the file of
    a torch layer that was reshaped instead of transposed, and a kernel turned around."""
    for weight in own_weights(side.visit.layer):
        shape, name = tuple(weight.shape), weight.name
        for axes in permutations(range(len(shape))):
            kept = tuple(shape[axis] for axis in axes) == shape
            if kept and axes != tuple(range(len(shape))):
                turned = partial(ops.transpose, axes=axes)
                yield f"with the axes of {name} in the order {axes}", changed(side, weight, turned)
        if len(shape) == 4 or (len(shape) == 2 and shape[0] != shape[1]):
            yield f"with {name} transposed, not reshaped", changed(side, weight, unshaped)
        if len(shape) == 4:
            yield f"with {name} turned around", changed(side, weight, turned_around)


def unshaped(kernel: Any) -> Any:
    """The kernel of Keras whose numbers lie in the order of torch: (out, in, …) → (…, in, out)."""
    *space, into, out = kernel.shape
    order = (2, 3, 1, 0) if space else (1, 0)
    return ops.transpose(ops.reshape(kernel, (out, into, *space)), order)


def turned_around(kernel: Any) -> Any:
    """(h, w, in, out) by 180°: a convolution where a correlation was meant."""
    return ops.flip(kernel, axis=(0, 1))


def changed(side: Side, weight: keras.Variable, change: Callable) -> Callable[[], Any]:
    return lambda: again(side, weights=[(weight, change(ops.convert_to_tensor(weight)))])


def own_weights(layer: Any) -> list[keras.Variable]:
    """Those of the layer itself; what lies in layers inside of it was compared there."""
    kinds = ("_trainable_variables", "_non_trainable_variables")
    return [weight for kind in kinds for weight in getattr(layer, kind, ())]


def epsilons(side: Side) -> Guesses:
    layer = side.visit.layer
    theirs = [getattr(side.peer, name, None) for name in EPSILON_NAMES]
    wanted = [epsilon for epsilon in theirs if isinstance(epsilon, float)]
    for name in EPSILON_NAMES:
        now = getattr(layer, name, None)
        for epsilon in dict.fromkeys([*wanted, *EPSILONS]) if isinstance(now, float) else ():
            if epsilon != now:
                told = f"with {name} {epsilon:g} in place of {now:g}"
                yield told, partial(again, side, twin(layer, name, epsilon))


def activations(side: Side) -> Guesses:
    layer = side.visit.layer
    for name in ACTIVATION_NAMES:
        now = getattr(layer, name, None)
        if callable(now) and not isinstance(now, keras.Operation):
            for told, function in ACTIVATIONS.items():
                yield f"with {told}", partial(again, side, twin(layer, name, function))
    if isinstance(now := getattr(layer, "approximate", None), bool):
        told = "exact" if now else "tanh"
        yield f"with the {told} GELU", partial(again, side, twin(layer, "approximate", not now))


def channels(side: Side) -> Guesses:
    """Another order of the channels, of what the layer gives out, then of what it is given."""
    for told, order in ORDERS.items():
        if side.value.ndim > 1:
            yield f"with its output {told}", partial(order, ops.convert_to_tensor(side.value))
        for name, given in others_given(side, has_channels, order):
            yield f"with {name} {told}", partial(again, side, given=given)


def steps(side: Side) -> Guesses:
    """One more or one less, of what may be a timestep or a position."""
    for by in (1, -1):
        for name, given in others_given(side, is_step, lambda x, by=by: x + ops.cast(by, x.dtype)):
            yield f"with {name} {by:+d}", partial(again, side, given=given)


def weights(side: Side) -> Guesses:
    """One weight of the other side in place of the own."""
    mine, theirs = own_weights(side.visit.layer), own_weights(side.peer)
    if len(mine) == len(theirs):
        for weight, other in zip(mine, theirs, strict=True):
            if weight.shape == other.shape:
                value = ops.convert_to_tensor(other)
                told = f"with the other side's {weight.name}"
                yield told, partial(again, side, weights=[(weight, value)])


def channels_of_x(side: Side) -> Guesses:
    for told, order in ORDERS.items():
        for name, x in others_of(side.x, is_picture, order):
            yield f"with {name} {told}", partial(from_the_start, side, x)


def steps_of_x(side: Side) -> Guesses:
    for by in (1, -1):
        for name, x in others_of(side.x, is_step, lambda leaf, by=by: leaf + by):
            yield f"with {name} {by:+d}", partial(from_the_start, side, x)


def from_the_start(side: Side, x: Any) -> Any:
    """What the layer gives out when the model is given another x."""
    visit = called_at(side.model, x, side.visit.address)
    return again(side, given=(visit.args, visit.kwargs))


CAUSES: tuple[tuple[str, Callable[[Side], Guesses]], ...] = (  # the cheap ones first
    ("another layout", layouts),
    ("transposed kernel", kernels),
    ("ε of a norm", epsilons),
    ("another GELU", activations),
    ("swapped channels", channels),
    ("shifted timestep", steps),
    ("another weight", weights),
    ("swapped channels", channels_of_x),
    ("shifted timestep", steps_of_x),
)

# --- what is given ------------------------------------------------------------------------------


def has_channels(x: Any) -> bool:
    return len(x.shape) > 1 and x.shape[-1] > 1


def is_picture(x: Any) -> bool:
    """Whether it has few channels, as colours and latents have."""
    return len(x.shape) > 2 and 1 < x.shape[-1] <= 4


def is_step(x: Any) -> bool:
    """Whether it may be a timestep: whole numbers, or one number for each of a batch."""
    one_each = len(x.shape) < 2 or (len(x.shape) == 2 and x.shape[-1] == 1)
    truth = keras.backend.standardize_dtype(x.dtype) == "bool"
    return not truth and (one_each or not is_float(x))


def others_given(
    side: Side, fits: Callable[[Any], bool], change: Callable
) -> Iterator[tuple[str, tuple[tuple, dict]]]:
    """For each tensor that fits, its name and (args, kwargs) of the layer with that one changed."""
    bound = inspect.signature(side.visit.layer.call).bind(*side.visit.args, **side.visit.kwargs)
    for name, arguments in others_of(dict(bound.arguments), fits, change):
        again_bound = inspect.BoundArguments(bound.signature, arguments)
        yield name, (again_bound.args, again_bound.kwargs)


def others_of(x: Any, fits: Callable[[Any], bool], change: Callable) -> Iterator[tuple[str, Any]]:
    """For each array or tensor in x that fits, its name and x with that one changed."""
    flat = tree.flatten_with_path(x)
    for i, (path, leaf) in enumerate(flat):
        if hasattr(leaf, "shape") and fits(leaf):
            others = [change(leaf) if k == i else other for k, (_, other) in enumerate(flat)]
            yield ".".join(map(str, path)) or "the input", tree.pack_sequence_as(x, others)


def given_to(visit: Visit) -> list[np.ndarray]:
    """The tensors that a layer was given."""
    flat = tree.flatten((visit.args, visit.kwargs))
    return [as_array(x) for x in flat if keras.ops.is_tensor(x)]
