"""What to read and what to replace: probes and edits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras import ops

from stable_diffusion_tf.errors import UsageError

HALVES = ("uncond", "cond")  # in the order of the batch
LOOP = ("x", "eps_uncond", "eps_cond", "eps", "x0")  # of a `Step`, in the order of computation


@dataclass(frozen=True)
class Mean:
    """The mean over one or several axes, named as in `TapInfo.dims`, taken in float32:
    Mean("head"), Mean(("head", "query"))."""

    dims: str | tuple[str, ...]

    @property
    def over(self) -> tuple[str, ...]:
        return (self.dims,) if isinstance(self.dims, str) else tuple(self.dims)

    def left(self, dims: tuple[str, ...]) -> tuple[str, ...]:
        """The axes that remain."""
        return tuple(name for name in dims if name not in self.over)

    def __call__(self, value: Any, dims: tuple[str, ...]) -> Any:
        if missing := set(self.over) - set(dims):
            raise UsageError(f"no mean over {min(missing)!r}: the axes are {', '.join(dims)}")
        return ops.mean(ops.cast(value, "float32"), axis=[dims.index(name) for name in self.over])


@dataclass(frozen=True)
class Probe:
    """Read the values that match.

    pattern: a glob or several. reduce: None, a `Mean`, or any pure function on `keras.ops` that
    makes of a value what is to be kept.
    """

    pattern: str | Sequence[str]
    reduce: Callable[[Any], Any] | Mean | None = None


def take(value: Any, given: Any) -> Any:
    """The value from elsewhere in place of this one: activation patching."""
    return given


@dataclass(frozen=True)
class Edit:
    """Replace the values that match by fn(value), or by fn(value, given) where there is a source.

    fn: a pure function on `keras.ops` that keeps the shape. It is handed the whole value, whatever
        the limits below; only attention that is computed a few queries at a time comes in parts.
    steps: the indices of the steps at which it acts; None: at all.
    half: 'cond' or 'uncond', of classifier-free guidance; heads, tokens: indices along those axes.
        All else of the value stays as it is.
    source: where `given` comes from, by the same address: a mapping from address to array, the same
        at every step; or one for each step: a film, a cache, a list of mappings, a `PerStep`; or a
        `Feed`, which is filled with any of these before a run.

    The values of the loop itself, one of `LOOP`, are edited between the networks' calls, by their
    name alone: Edit("eps_cond", fn). They are NumPy arrays, (b, h, w, 4); what follows from one is
    computed from what the edit left.
    """

    pattern: str | Sequence[str]
    fn: Callable[..., Any] = take
    steps: Sequence[int] | None = None
    half: str | None = None
    heads: Sequence[int] | None = None
    tokens: Sequence[int] | None = None
    source: Any = None

    def __post_init__(self):
        if self.half not in (None, *HALVES):
            raise UsageError(f"no half {self.half!r}; choose 'cond' or 'uncond'")
        if self.fn is take and self.source is None:
            raise UsageError(
                f"the edit of {self.pattern!r} says nothing: give it an fn or a source"
            )

    def rows(self, batch: int) -> range | None:
        """The rows of the batch that it acts on; None: all."""
        if self.half is None:
            return None
        first = HALVES.index(self.half) * (batch // 2)
        return range(first, first + batch // 2)


def as_probes(probes: "str | Probe | Sequence[str | Probe]") -> list[Probe]:
    """A glob, a Probe or several of either, as a list of probes."""
    several = [probes] if isinstance(probes, str | Probe) else probes
    return [Probe(one) if isinstance(one, str) else one for one in several]


def as_edits(edits: "Edit | Sequence[Edit]") -> list[Edit]:
    return [edits] if isinstance(edits, Edit) else list(edits)


class Feed:
    """A source that is filled anew before each run, so that one compiled function serves all:
    feed = Feed(); Edit(places, operator.mul, source=feed); feed(masks)."""

    def __init__(self):
        self.values: Any = None

    def __call__(self, values: Any) -> None:
        self.values = values


@dataclass(frozen=True)
class PerStep(Sequence):
    """A source for each of so many steps, made when its step comes: step → address → array."""

    make: Callable[[int], Mapping[str, Any]]
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Mapping[str, Any]:
        return self.make(step)


class Reads(dict):
    """What the last call of each network read: address → array, floats in float32. `dims` names
    the axes of each, where they are known."""

    def __init__(self):
        super().__init__()
        self.dims: dict[str, tuple[str, ...]] = {}
