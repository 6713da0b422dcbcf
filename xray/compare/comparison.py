"""Where do two runs part? Two films, two backends, two precisions, our port and diffusers.

Whatever is compared comes as two mappings from address to array: a film's frames, what probes read,
what `reads_on` brings from another backend, what `hooked` hears from diffusers.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError
from xray.measure import cosine, parting

if TYPE_CHECKING:  # comparing arrays does without Keras
    from xray.film import Film

Arrays = Mapping[str, np.ndarray]

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
