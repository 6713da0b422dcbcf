"""DebugTensor: an array that can tell what it is. It never changes: an operation makes a new one.

In a notebook, where x alone shows one line, a table and a picture:

    x = DebugTensor(step.x, "x", "latent", step=step.index)
    x.corrupt(0.1, rng=0).diff(x)
    x.as_image(sd.decode_latent)
"""

import base64
import dataclasses
import html
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from stable_diffusion_tf import scheduler
from stable_diffusion_tf.disk import whole_file
from stable_diffusion_tf.errors import UsageError
from xray import measure

from .colour import around_zero, from_bytes, from_zero, painted
from .summary import bars, facts, plain_bytes

SHOWN = 8  # pictures, side by side in a notebook


def lerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """The straight way: (1 − share)·a + share·b."""
    return (1 - share) * a + share * b


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """The way on a sphere, which keeps the length of two arrays that have the same.

    Shoemake, SIGGRAPH 1985, p. 247; the angle is that between the arrays as two vectors. Where it
    is none, the straight way. Raises UsageError where they point opposite ways.
    """
    angle = np.arccos(np.clip(measure.cosine(a, b), -1, 1))
    if not np.isfinite(angle):
        raise UsageError("slerp has no angle to turn by: zeros or NaN; use lerp")
    if np.pi - angle < 1e-6:
        raise UsageError("slerp does not know which way to turn: the two are opposite; use lerp")
    if angle < 1e-6:
        return lerp(a, b, share)
    turned, left = (float(np.sin(part * angle) / np.sin(angle)) for part in (share, 1 - share))
    return left * a + turned * b


class Difference(NamedTuple):
    """Where two arrays part, and how far."""

    largest: float  # max|a − b|
    relative: float  # max|a − b| / max|b|
    cosine: float
    where: tuple[int, ...]  # the index of the largest difference, the first of several


@dataclass(frozen=True, eq=False, repr=False)
class DebugTensor:
    """A copy of an array of numbers, which nobody can write to, and what is known of it.

    array: any shape; bool, integers or floats. space: what the numbers are, one of SPACES. dims:
    the names of the dimensions ("half", "head", "query", "token", …); those of a space that has
    its own are filled in. step: the step of the run that it was read at. Raises UsageError.
    """

    array: np.ndarray
    name: str = "tensor"
    space: str = "other"
    dims: tuple[str, ...] = ()
    step: int | None = None

    def __post_init__(self):
        array = np.array(self.array, order="C")
        array.flags.writeable = False
        if array.dtype.kind not in "biuf":
            raise UsageError(
                f"{self.name} holds {array.dtype}, no plain numbers: hand in .astype('float32')"
            )
        if self.space not in SPACES:
            raise UsageError(f"no space {self.space!r}; choose {', '.join(SPACES)}")
        dims = tuple(self.dims) or default_dims(SPACES[self.space].dims, array.ndim)
        if dims and len(dims) != array.ndim:
            raise UsageError(f"{self.name} is {array.shape}: {dims} do not name its dimensions")
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "dims", dims)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.array, dtype=dtype, copy=copy)

    def _made(self, how: str, array: np.ndarray) -> "DebugTensor":
        return dataclasses.replace(self, array=array, name=f"{how}({self.name})")

    # --- what it is ------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """One line: name, shape, dtype, mean ± std, range, what is odd, bytes, histogram."""
        told = facts(self.array)
        odd = ", ".join(f"{told[kind]} {kind}" for kind in ("NaN", "inf", "zeros") if told[kind])
        parts = [
            f"{' '.join(self.name.split())} {self.array.shape} {self.array.dtype}",
            self.space,
            "" if self.step is None else f"step {self.step}",
            f"{told['mean']} ± {told['std']}",
            f"{told['least']} … {told['most']}",
            odd,
            plain_bytes(self.array.nbytes),
            bars(self.array),
        ]
        return " · ".join(part for part in parts if part)

    def memory(self) -> str:
        """What it takes, in all and for one index of each dimension: '… token 77 × 262.1 kB'."""
        array = self.array
        names = self.dims or [f"axis {i}" for i in range(array.ndim)]
        each = [
            f"{name} {size} × {plain_bytes(array.nbytes // max(size, 1))}"
            for name, size in zip(names, array.shape, strict=True)
        ]
        whole = f"{plain_bytes(array.nbytes)}, {array.itemsize} bytes a value"
        return " = ".join([whole, *each])

    def normality(self) -> measure.Normality:
        """How far its values are from normal ones: `measure.normality`."""
        return measure.normality(self.array)

    def spectrum(self) -> measure.Spectrum:
        """Power by spatial frequency, (frequencies, maps): `measure.spectrum` of `as_maps`."""
        return measure.spectrum(np.moveaxis(as_maps(self), 0, -1))

    def snr(self, clean: np.ndarray, t: int, alphas: np.ndarray) -> tuple[float, float]:
        """Signal-to-noise ratio in dB at timestep t: as it is, and as the schedule has it.

        The signal is √ᾱ·clean, the noise all the rest. The schedule's, ᾱ/(1 − ᾱ), is for a clean
        latent and a noise of power 1 (arXiv 2006.11239, eq. 4). clean: an array of this shape;
        alphas: (1000,), as `stable_diffusion_tf.scheduler.alphas_cumprod` gives them.
        """
        clean = self._partner(clean).astype(np.float64)
        signal = scheduler.add_noise(clean, 0.0, t, alphas)
        with np.errstate(divide="ignore", invalid="ignore"):
            measured = np.mean(signal**2) / np.mean((self.array - signal) ** 2)
            decibels = 10 * np.log10([measured, scheduler.snr(t, alphas)])
        return float(decibels[0]), float(decibels[1])

    def diff(self, other: np.ndarray) -> Difference:
        """How far it is from another of its shape, and where most. NaN on one side only is
        infinitely far."""
        other = self._partner(other)
        if not self.array.size:
            raise UsageError(f"{self.name} is empty: there is nothing to compare")
        far = measure.gap(self.array, other)
        where = np.unravel_index(np.argmax(far), far.shape)
        return Difference(
            float(far[where]),
            measure.parting(self.array, other),
            float(measure.cosine(self.array, other)),
            tuple(int(i) for i in where),
        )

    def _partner(self, other: np.ndarray) -> np.ndarray:
        other = np.asarray(other)
        if other.shape != self.array.shape:
            raise UsageError(f"{self.name} is {self.array.shape}, the other {other.shape}")
        return other

    # --- another one made of it ------------------------------------------------------------------

    def tile(self, rows: slice, columns: slice) -> "DebugTensor":
        """The patch of these rows and columns, repeated from the top left over every map."""
        result = self.array
        for axis, part in zip(grid(self), (rows, columns), strict=True):
            size = result.shape[axis]
            patch = np.arange(size)[part]
            if not len(patch):
                raise UsageError(f"{part} takes nothing of {size} positions of {self.name}")
            result = np.take(result, np.resize(patch, size), axis)
        return self._made("tile", result)

    def mask(self, image: np.ndarray, outside: float | np.ndarray = 0.0) -> "DebugTensor":
        """What lies where the image is set (`measure.covered`); `outside` elsewhere, a number or an
        array of this shape."""
        return self._made("mask", np.where(self._covered(image), self.array, outside))

    def replace(self, image: np.ndarray, inside: float | np.ndarray) -> "DebugTensor":
        """`inside`, a number or an array of this shape, wherever `mask` would keep the values."""
        return self._made("replace", np.where(self._covered(image), inside, self.array))

    def _covered(self, image: np.ndarray) -> np.ndarray:
        """The image's mask on the grid of this array, ready to be broadcast over its axes."""
        rows, columns = grid(self)
        mask = measure.covered(image, self.array.shape[rows], self.array.shape[columns])
        everywhere = mask.reshape(*[1] * (self.array.ndim - 2), *mask.shape)
        return np.moveaxis(everywhere, (-2, -1), (rows, columns))

    def mix(
        self, other: np.ndarray, share: float, path: Callable[..., np.ndarray] = lerp
    ) -> "DebugTensor":
        """A share of the way to another of its shape, 0 … 1, along a path: `lerp` or `slerp`."""
        return self._made("mix", path(self.array, self._partner(other), share))

    def corrupt(
        self, share: float, amplitude: float = 1.0, rng: np.random.Generator | int = 0
    ) -> "DebugTensor":
        """A share of its positions, 0 … 1, chosen at random, replaced by Gaussian noise of this
        standard deviation.

        A position is one value, or all the channels of a place where the last dimension is
        "channel".
        """
        if not 0 <= share <= 1:
            raise UsageError(f"a share of {share} is not from 0 to 1")
        rng = np.random.default_rng(rng)
        shape = self.array.shape
        places = (*shape[:-1], 1) if self.dims[-1:] == ("channel",) else shape
        order = rng.permutation(math.prod(places)).reshape(places)
        noise = (amplitude * rng.standard_normal(shape)).astype(fractions(self.array))
        hit = order < round(share * order.size)
        return self._made("corrupt", np.where(hit, noise, self.array))

    def sample(self, rng: np.random.Generator | int = 0) -> "DebugTensor":
        """Gaussian noise of its shape, with the mean and std of its finite values."""
        finite = self.array[np.isfinite(self.array)].astype(np.float64)
        if not finite.size:
            raise UsageError(f"{self.name} has no finite value to draw a sample like")
        noise = np.random.default_rng(rng).normal(finite.mean(), finite.std(), self.array.shape)
        return self._made("sample", noise.astype(fractions(self.array)))

    def shuffle(self, rng: np.random.Generator | int = 0) -> "DebugTensor":
        """The same values in a random order."""
        values = np.random.default_rng(rng).permutation(self.array.ravel())
        return self._made("shuffle", values.reshape(self.array.shape))

    # --- to look at ------------------------------------------------------------------------------

    def as_image(self, to_rgb: Callable[[np.ndarray], np.ndarray] | None = None) -> "DebugTensor":
        """Pictures, (n, H, W, 3) float32 in [-1, 1], space "pixels"; magenta where it is no number.

        to_rgb: what draws them. Of latents and pixels it is given (n, h, w, c), so
        `sd.decode_latent` will do, or `functools.partial(measure.linear_rgb, matrix=…, bias=…)`;
        of all else (n, rows, columns), see `as_maps`. None draws latents by the linear map of
        SD 1.x, attention from its zero, the rest around its zero, every map on its own scale.
        """
        pictures = painted((to_rgb or SPACES[self.space].draw)(SPACES[self.space].lay_out(self)))
        return DebugTensor(pictures, f"as_image({self.name})", "pixels", step=self.step)

    def _repr_png_(self) -> bytes | None:
        """The first pictures side by side, for a notebook; None where it cannot be drawn."""
        from xray.plots import film_strip  # matplotlib takes a while, and only notebooks come here

        try:
            laid_out = SPACES[self.space].lay_out(self)[:SHOWN]
            images = painted(SPACES[self.space].draw(laid_out))
        except UsageError:
            return None
        if not images.size:
            return None
        png = io.BytesIO()
        labels = [str(i) for i in range(len(images))]
        film_strip(images, labels, f"{self.name} · {self.space}").savefig(png, format="png")
        return png.getvalue()

    def _repr_html_(self) -> str:
        """The line, a table and the picture, for a notebook."""
        table = {
            "dimensions": ", ".join(self.dims),
            "memory": self.memory(),
            **facts(self.array),
        }
        rows = [f"<tr><th>{k}</th><td>{html.escape(str(v))}</td></tr>" for k, v in table.items()]
        png = self._repr_png_()
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else ""
        picture = f'<img alt="{html.escape(self.name)}" src="{source}">' if png else ""
        return f"<code>{html.escape(repr(self))}</code><table>{''.join(rows)}</table>{picture}"

    # --- on disk ---------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the array and what is known of it, its step too, as safetensors: whole or not at
        all. Raises OSError where the disk refuses."""
        path = Path(path)
        known = {"name": self.name, "space": self.space, "dims": " ".join(self.dims)}
        step = {} if self.step is None else {"step": str(self.step)}
        with whole_file(path) as fresh:
            fresh.write_bytes(save({"array": self.array}, {**known, **step}))

    @classmethod
    def load(cls, path: str | Path) -> "DebugTensor":
        """What `save` wrote, with its step. Raises UsageError where the file is something else."""
        try:
            with safe_open(path, "numpy") as file:
                known = file.metadata() or {}
                array = file.get_tensor("array")
        except (OSError, SafetensorError) as error:
            raise UsageError(f"cannot read {path}: {error}; name a file that .save wrote") from None
        if not {"name", "space", "dims"} <= set(known):
            raise UsageError(f"{path} does not say what it holds; name a file that .save wrote")
        step = int(known["step"]) if "step" in known else None
        return cls(array, known["name"], known["space"], tuple(known["dims"].split()), step)


# --- where its maps are ---------------------------------------------------------------------------


def default_dims(dims: tuple[str, ...], ndim: int) -> tuple[str, ...]:
    """The names that a space has for an array of so many dimensions, with or without the first."""
    return dims[len(dims) - ndim :] if ndim in (len(dims), len(dims) - 1) else ()


def grid(tensor: DebugTensor) -> tuple[int, int]:
    """The axes of rows and columns: those that are called so, else the last two."""
    if "row" in tensor.dims and "column" in tensor.dims:
        return tensor.dims.index("row"), tensor.dims.index("column")
    if tensor.array.ndim < 2:
        raise UsageError(f"{tensor.name} is {tensor.array.shape}: it has no rows and columns")
    return tensor.array.ndim - 2, tensor.array.ndim - 1


def as_maps(tensor: DebugTensor) -> np.ndarray:
    """All the maps in it, one behind the other: (n, rows, columns)."""
    maps = np.moveaxis(tensor.array, grid(tensor), (-2, -1))
    return maps.reshape(math.prod(maps.shape[:-2]), *maps.shape[-2:])


def as_batch(tensor: DebugTensor) -> np.ndarray:
    """(n, h, w, c), also where there is only one, (h, w, c)."""
    if tensor.array.ndim not in (3, 4):
        raise UsageError(f"{tensor.name} is {tensor.array.shape}; {tensor.space} is (b, h, w, c)")
    return tensor.array.reshape(-1, *tensor.array.shape[-3:])


def fractions(array: np.ndarray) -> np.dtype:
    """The dtype for what is drawn in the likeness of an array: its own if that holds fractions."""
    return array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)


class Space(NamedTuple):
    """What numbers are: the names of their dimensions, and how they become pictures."""

    dims: tuple[str, ...]
    lay_out: Callable[[DebugTensor], np.ndarray]
    draw: Callable[[np.ndarray], np.ndarray]


CELLS = ("batch", "row", "column", "channel")
SPACES = {
    "latent": Space(CELLS, as_batch, measure.linear_rgb),
    "pixels": Space(CELLS, as_batch, from_bytes),
    "text": Space(("prompt", "token", "channel"), as_maps, around_zero),
    "attention": Space((), as_maps, from_zero),
    "noise": Space(CELLS, as_maps, around_zero),
    "other": Space((), as_maps, around_zero),
}
