"""Where do two runs part? Two films, two backends, two precisions, our port and diffusers.

Whatever is compared comes as two mappings from address to array: a film's frames, what probes read,
what `reads_on` brings from another backend, what `hooked` hears from diffusers.
"""

import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError

from .measure import cosine, parting

if TYPE_CHECKING:  # comparing arrays does without Keras
    from stable_diffusion_tf import StableDiffusion

    from .film import Film

Arrays = Mapping[str, np.ndarray]
Asked = Mapping[str, Sequence[np.ndarray]]  # part → what its network is given

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
PARTS = {  # pattern of addresses → the part of the model; the first that fits
    "text_encoder*": "text encoder",
    "unet.time*": "UNet down",
    "unet.conv_in*": "UNet down",
    "unet.down_blocks*": "UNet down",
    "unet.mid_block*": "UNet middle",
    "unet*": "UNet up",
    "vae.encoder*": "encoder",
    "vae.quant_conv*": "encoder",
    "vae.moments*": "encoder",
    "vae*": "decoder",
    "*": "the loop",
}
COLUMNS = "{:2}{:68.68} {:>9.9} {:>10.10} {:>5.5}"


class Row(NamedTuple):
    """One value of both sides: max|a − b| / max|b|, the cosine between them as vectors (NaN where
    there is none), and a note where they cannot be compared; the difference is infinite then."""

    address: str
    difference: float
    cosine: float
    note: str = ""

    @property
    def bits(self) -> float:
        """To how many bits the two agree: −log2 of the difference; infinite where they are equal.
        A float32 has 24, a bfloat16 has 8."""
        return -math.log2(self.difference) if self.difference else math.inf

    @property
    def part(self) -> str:
        """The part of the model that the value lies in."""
        return next(name for pattern, name in PARTS.items() if fnmatchcase(self.address, pattern))


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side. rows: what both have, in order of execution; only_one, only_other:
    the addresses that one side lacks. Printed, a table of 100 columns."""

    rows: tuple[Row, ...]
    tolerance: float
    only_one: tuple[str, ...] = ()
    only_other: tuple[str, ...] = ()

    @property
    def first(self) -> Row | None:
        """The first value that parts by more than the tolerance."""
        return next((row for row in self.rows if row.difference > self.tolerance), None)

    @property
    def furthest(self) -> Row:
        """The value that parts most."""
        return max(self.rows, key=lambda row: row.difference)

    def __str__(self) -> str:
        sides = {"one": self.only_one, "the other": self.only_other}
        lacking = [f"only in {side}: {address}" for side in sides for address in sides[side]]
        return "\n".join([*self.table(), *lacking, self.verdict])

    def table(self) -> list[str]:
        """The lines of the table: two of its head, one for each row."""
        head = COLUMNS.format("", "address", "max|a−b|/", "cosine", "bits")
        return [head, COLUMNS.format("", "", "max|b|", "", ""), *map(self.line, self.rows)]

    def line(self, row: Row) -> str:
        mark = "→" if row is self.first else ""
        place = row.address if len(row.address) <= 68 else f"…{row.address[-67:]}"
        if row.note:
            return f"{mark:2}{place:68} {row.note}"[:100]
        bits = "all" if row.bits == math.inf else f"{row.bits:.1f}"
        angle = "–" if math.isnan(row.cosine) else f"{row.cosine:.7f}"
        return COLUMNS.format(mark, place, f"{row.difference:.1e}", angle, bits)

    @property
    def verdict(self) -> str:
        """One line: where they part first, or that they do not."""
        if self.first:
            return f"first past {self.tolerance:g}: {self.first.address}"
        if not self.furthest.difference:
            return f"all {len(self.rows)} values are equal"
        return f"all {len(self.rows)} values agree to {self.furthest.difference:.1e}"


def compare(
    one: Arrays, other: Arrays, order: Iterable[str] | None = None, tolerance: float = 1e-4
) -> Comparison:
    """How far each value of one run is from that of the other, by address.

    order: the addresses in order of execution; by default, and for what it leaves out, as `one`
    has them. tolerance: of max|a − b| / max|b|, from which on two values part. NaN on both sides is
    the same, on one side infinitely far; so are two shapes. Raises UsageError where the two have
    no address in common.
    """
    return joined([("", one, other)], tuple(order or ()), tolerance)


def compare_films(one: "Film", other: "Film", tolerance: float = 1e-4) -> Comparison:
    """Two films, step by step: `unet.conv_in@3` is that of step 3. What one film lacks, as the
    later steps of a run that was stopped, is told. Raises UsageError as `compare`."""
    steps = sorted({*one.frames, *other.frames})
    frames = [(f"@{i}", one.frames.get(i, {}), other.frames.get(i, {})) for i in steps]
    text, decoder = ("", one.text, other.text), ("", one.decoder, other.decoder)
    return joined([text, *frames, decoder], (), tolerance)


def joined(
    pairs: Sequence[tuple[str, Arrays, Arrays]], order: tuple[str, ...], tolerance: float
) -> Comparison:
    """One comparison of several pairs; a suffix tells their addresses apart."""
    rows, lacking = [], ([], [])
    for suffix, one, other in pairs:
        for address in dict.fromkeys([*order, *one, *other]):
            if address in one and address in other:
                rows.append(between(address + suffix, one[address], other[address]))
            elif address in one or address in other:
                lacking[address in other].append(address + suffix)
    if not rows:
        raise UsageError(
            f"the two have no address in common: {example(lacking[0])} here, "
            f"{example(lacking[1])} there; probe the same values on both sides"
        )
    return Comparison(tuple(rows), tolerance, *map(tuple, lacking))


def example(addresses: Sequence[str]) -> str:
    return f"{addresses[0]} …" if addresses else "nothing"


def between(address: str, a: np.ndarray, b: np.ndarray) -> Row:
    if np.shape(a) != np.shape(b):
        return Row(address, math.inf, math.nan, f"{np.shape(a)} and {np.shape(b)}")
    return Row(address, parting(a, b), float(cosine(a, b)))


def by_part(comparison: Comparison) -> dict[str, Row]:
    """Part of the model → its value that parts most."""
    found: dict[str, Row] = {}
    for row in comparison.rows:
        if row.part not in found or row.difference > found[row.part].difference:
            found[row.part] = row
    return found


# --- another precision, another backend --------------------------------------------------------


def reads_of(sd: "StableDiffusion", asked: Asked, pattern: str = "*") -> dict[str, np.ndarray]:
    """What the networks of a model hold when each is called once: address → float32 array, in
    order of execution. asked: part ('text_encoder', 'unet', 'encoder' or 'decoder') → its inputs.
    """
    from .instrumented import instrument

    seen = instrument(sd, pattern)
    for part, arrays in asked.items():
        seen.function(part)(*arrays)
    return {address: seen.reads[address] for address in seen.reads.dims}  # JAX sorts its outputs


def reads_on(
    backend: str,
    asked: Asked,
    weights: str | Path = "phantom",
    precision: str = "float32",
    pattern: str = "*",
) -> dict[str, np.ndarray]:
    """The same on another backend, in a process of its own: Keras has one for its lifetime.

    weights: as `StableDiffusion.load` takes them. Raises UsageError where the backend is not
    installed, and for what the model refuses.
    """
    check_installed(backend)
    with TemporaryDirectory() as folder:
        given, made = Path(folder, "given.npz"), Path(folder, "made.npz")
        np.savez(given, **{f"{k}/{i}": array for k in asked for i, array in enumerate(asked[k])})
        words = [str(weights), precision, pattern, str(given), str(made)]
        done = subprocess.run(
            [sys.executable, "-m", "xray.compare", *words],
            env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": search_path()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == REFUSED:
            raise UsageError(done.stdout.strip())
        if done.returncode:
            raise RuntimeError(f"on {backend}: {done.stderr}")
        with np.load(made) as found:
            return dict(found)


REFUSED = 2  # the status of a process that was asked for what it cannot do


def check_installed(backend: str) -> None:
    if backend not in BACKENDS:
        raise UsageError(f"no backend {backend!r}; choose {', '.join(BACKENDS)}")
    if find_spec(backend) is None:
        raise UsageError(f"{BACKENDS[backend]} is not installed; type pip install {backend}")


def search_path() -> str:
    """Where the other process finds this package, from whatever folder it is started."""
    root, before = str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")
    return os.pathsep.join([root, before] if before else [root])


def answer(weights: str, precision: str, pattern: str, given: str, made: str) -> None:
    """The other process: from one file of arrays to the other."""
    from stable_diffusion_tf import StableDiffusion

    asked: dict[str, list[np.ndarray]] = {}
    with np.load(given) as arrays:
        for name in arrays:
            asked.setdefault(name.split("/")[0], []).append(arrays[name])
    try:
        found = reads_of(StableDiffusion.load(weights, precision), asked, pattern)
    except UsageError as error:
        print(error)
        sys.exit(REFUSED)
    np.savez(made, **found)


# --- diffusers ---------------------------------------------------------------------------------


@contextmanager
def hooked(module: Any, root: str = "unet") -> Iterator[dict[str, np.ndarray]]:
    """Inside, what is yielded holds whatever the modules of a torch network gave out when it was
    last called: address → array, pictures channels last, in order of execution.

    module: diffusers' `UNet2DConditionModel`, whose modules bear our addresses behind `root`.
    """
    reads: dict[str, np.ndarray] = {}
    calls: Counter[str] = Counter()

    def listen(address: str):
        def hear(_module: Any, _inputs: Any, out: Any) -> None:
            calls[address] += 1
            call = address if calls[address] == 1 else f"{address}#{calls[address]}"
            found = dict(tensors(out))
            for place, tensor in found.items():
                alone = len(found) == 1  # diffusers wraps even a single output
                reads[call if alone else f"{call}:{place}"] = channels_last(tensor)

        return hear

    def start(*_: Any) -> None:
        calls.clear()
        reads.clear()

    handles = [module.register_forward_pre_hook(start)]
    for name, part in module.named_modules():
        handles.append(part.register_forward_hook(listen(f"{root}.{name}" if name else root)))
    try:
        yield reads
    finally:
        for handle in handles:
            handle.remove()


def tensors(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors in nested outputs, each with its place: '0', '1.2', 'sample'."""
    if hasattr(value, "detach"):
        yield place, value
        return
    inside = value if isinstance(value, Mapping) else dict(enumerate(listed(value)))
    for key, part in inside.items():
        yield from tensors(part, f"{place}.{key}" if place else str(key))


def listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def channels_last(tensor: Any) -> np.ndarray:
    """A torch tensor as float32; (b, c, h, w) → (b, h, w, c)."""
    array = tensor.detach().float().cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(array, 1, -1) if array.ndim == 4 else array.copy())


if __name__ == "__main__":
    answer(*sys.argv[1:])
