"""A page of HTML that opens anywhere: no server, no network, nothing to install.

It is page.html with style.css, the body of its kind and the scripts of its kind put into it, and
arrays as text: base64 of zlib of unsigned integers, with the range of each map beside them. Its
policy (CSP) allows these very scripts and styles, by hash, and no request; all that it tells goes
in as data.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

HERE = resources.files(__package__)
KINDS = {  # kind → its title, and its scripts, in this order, one scope
    "film": (
        "A film of a run",
        "data state paint picture tokens controls heads pixel model curves compare hands film",
    ),
    "words": ("Heat maps", "data state paint picture tokens controls pixel words"),
    "taps": ("Taps", "paint taps"),
}
SMALL = 760  # pixels, the height of a page in a notebook, at most


class Packed(NamedTuple):
    """An array on its way into the page: unsigned integers whose 0 and largest value stand for low
    and high, one of each for every map, (…), along the first axes."""

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray


def write_page(kind: str, told: Mapping[str, Any]) -> bytes:
    """The page of what is told: what is no array goes in as JSON, each array as a script of its own
    that nobody runs."""
    arrays = {name: one for name, one in told.items() if isinstance(one, Packed)}
    plain = {name: one for name, one in told.items() if name not in arrays}
    plain["arrays"] = {
        name: {
            "shape": one.values.shape,
            "bytes": one.values.itemsize,
            "low": rounded(one.low),
            "high": rounded(one.high),
        }
        for name, one in arrays.items()
    }
    title, scripts = KINDS[kind]
    script = "\n".join(source(f"{name}.js") for name in scripts.split())
    script = f'"use strict";\n(() => {{\n{script}\n}})();'
    style = source("style.css")
    blobs = "\n".join(
        f'<script type="text/plain" id="array-{name}">{packed(one.values)}</script>'
        for name, one in arrays.items()
    )
    parts = {
        "title": title,
        "script-hash": hash_of(script),
        "style-hash": hash_of(style),
        "style": style,
        "body": source(f"{kind}.html"),
        "kind": kind,
        "told": as_json(plain),
        "arrays": blobs,
        "script": script,
    }
    pieces = source("page.html").split("{{")
    filled = [pieces[0]]  # each name is filled once, so nothing that is filled in is a name
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled).encode()


def framed(page: bytes, height: int = SMALL) -> str:
    """A page as a notebook shows it: in a frame of its own, which reaches nothing around it."""
    return (
        f'<iframe sandbox="allow-scripts allow-downloads" srcdoc="{escape(page.decode())}" '
        f'width="100%" height="{height}" style="border: 0"></iframe>'
    )


def source(name: str) -> str:
    return (HERE / name).read_text("utf-8")


def hash_of(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def as_json(value: Any) -> str:
    """JSON that ends no script and begins no comment, whatever it says."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(values: np.ndarray) -> str:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 9)).decode()


def rounded(values: np.ndarray) -> list[float]:
    """In a row, with digits enough for whole numbers of 16 bits."""
    return [float(f"{value:.6g}") for value in np.ravel(values)]


def quantised(values: np.ndarray, axes: int, kind: type) -> Packed:
    """Every part of an array behind its first `axes` axes from its own smallest value to its own
    largest."""
    values = np.asarray(values, np.float64)
    rest = tuple(range(axes, values.ndim))
    low, high = (pick(values, axis=rest, keepdims=True) for pick in (np.min, np.max))
    most = np.iinfo(kind).max
    span = np.where(high > low, high - low, 1)
    return Packed(np.rint((values - low) / span * most).astype(kind), low, high)
