"""A matplotlib Figure in which text is text."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

NO_GLYPH = ["Glyph .* missing from font", "Matplotlib currently does not support .* natively"]

DRAWING = ContextVar("drawing", default=True)


class NoFigure(Exception):
    """A figure was begun where none is wanted."""


@contextmanager
def no_figures() -> Iterator[None]:
    """Inside, whoever begins a figure is stopped there by NoFigure."""
    before = DRAWING.set(False)
    try:
        yield
    finally:
        DRAWING.reset(before)


class PlainFigure(Figure):
    """A Figure that sets text as it was typed. In matplotlib's own, `$5 and $6` is mathematics,
    `$\\frac{$` an error, half a surrogate pair another, and each letter that the font lacks a
    warning: here it is an empty box."""

    def __init__(self, *arguments, **options):
        if not DRAWING.get():
            raise NoFigure
        super().__init__(*arguments, **options)

    def draw(self, renderer) -> None:
        for text in self.findobj(Text):
            set_plain(text)
        for axes in self.axes:
            keep_powers(axes.xaxis)
            keep_powers(axes.yaxis)
        with warnings.catch_warnings():
            for told in NO_GLYPH:
                warnings.filterwarnings("ignore", told, UserWarning)
            super().draw(renderer)


def set_plain(text: Text) -> None:
    """Switch mathematics off. Half a surrogate pair becomes a question mark."""
    typed = text.get_text().encode("utf-8", "replace").decode()
    text.set_text(typed)
    if not text.get_wrap():
        text.set_parse_math(False)
    elif "$" in typed:  # matplotlib asks nobody before it measures a line to be wrapped
        text.set_text(typed.replace(r"\$", "$").replace("$", r"\$"))


def keep_powers(axis) -> None:
    """The numbers of a logarithmic axis are set as 10ⁿ by mathematics, and hold nobody's text."""
    if isinstance(axis.get_major_formatter(), LogFormatter):
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            for label in (tick.label1, tick.label2):
                label.set_parse_math(True)
