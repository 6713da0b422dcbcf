"""A film as a notebook shows it: the picture, small, and what was asked."""

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from .film import Film

SIDE = 256  # pixels at most
SHOWN = ("prompt", "negative", "seed", "guidance", "eta", "weights", "backend")
LENGTH = 200  # letters at most of what is told


def as_html(film: "Film") -> str:
    """A picture and a table; all that the film says is escaped, and nothing lies outside."""
    told = {name: film.facts[name] for name in SHOWN if film.facts.get(name) not in (None, "")}
    told = {"film": film.folder, "steps": film.state, **told}
    rows = "".join(
        f"<tr><th>{name}</th><td>{brief(value)}</td></tr>" for name, value in told.items()
    )
    picture = "" if film.image is None else f'<img alt="" src="{data_uri(film.image)}">'
    return f"<div>{picture}<table>{rows}</table></div>"


def brief(value: object) -> str:
    told = str(value)
    return escape(told if len(told) <= LENGTH else f"{told[: LENGTH - 1]}…")


def data_uri(image: np.ndarray, side: int = SIDE) -> str:
    """A picture, (H, W, 3) uint8, at most so many pixels a side, as the address of itself."""
    small = Image.fromarray(image)
    small.thumbnail((side, side))
    made = io.BytesIO()
    small.save(made, "PNG")
    return "data:image/png;base64," + base64.b64encode(made.getvalue()).decode()
