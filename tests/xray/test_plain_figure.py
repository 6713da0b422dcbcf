"""Text in figures is what was typed."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from xray.plain_figure import PlainFigure

ROOT = Path(__file__).resolve().parents[2]
ODD = ["a $\\frac{$ cat", "$x_{$", "$5 and $6", "a 🐈", "猫", "बिल्ली", "100 %"]


def drawn(figure: PlainFigure) -> np.ndarray:
    """(H, W, 4) uint8."""
    file = BytesIO()
    figure.savefig(file, format="rgba", dpi=60)
    return np.frombuffer(file.getvalue(), np.uint8)


@pytest.mark.parametrize("wrap", [False, True])
def test_half_a_surrogate_pair_is_a_question_mark(wrap):
    figure = PlainFigure(figsize=(4, 3))
    title = figure.suptitle("a \udcff cat", wrap=wrap)
    assert drawn(figure).std() > 0 and title.get_text() == "a ? cat"


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_any_text_is_set_anywhere(text):
    """Warnings are errors here, so a letter that the font lacks is one too."""
    figure = PlainFigure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    axes.bar([text, "other"], [1, 2], label=text)
    axes.set_title(text)
    axes.set_ylabel(text)
    axes.set_yticks([0, 1], [text, text])
    axes.legend()
    figure.suptitle(text, wrap=True)
    assert drawn(figure).std() > 0


@pytest.mark.parametrize("wrap", [False, True])
def test_a_dollar_is_a_dollar(wrap):
    pictures = []
    ways = (PlainFigure, "$5 and $6"), (Figure, r"\$5 and \$6")  # matplotlib's, to say the same
    for make, text in ways:
        figure = make(figsize=(9, 1))
        figure.text(0.1, 0.5, text, wrap=wrap)
        pictures.append(drawn(figure))
    np.testing.assert_array_equal(*pictures)


def test_the_powers_of_a_logarithmic_axis_stay():
    figure = PlainFigure(figsize=(3, 2))
    axes = figure.subplots()
    axes.semilogy([1, 2, 3], [1e-4, 1e-2, 1])
    drawn(figure)
    assert all(tick.label1.get_parse_math() for tick in axes.yaxis.get_major_ticks())
    assert not axes.title.get_parse_math()


def test_every_figure_is_a_plain_one():
    sources = [
        path for part in ("xray", "phantom", "experiments") for path in (ROOT / part).rglob("*.py")
    ]
    assert len(sources) > 80
    made = r"(?<!Plain)\bFigure\(|pyplot"
    others = [path for path in sources if re.search(made, path.read_text("utf-8"))]
    assert not others
