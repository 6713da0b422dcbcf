"""The pages about other people's models do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def code(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page(name), re.DOTALL)


def run_once(snippet: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_twice(snippet: str) -> str:
    """What a snippet prints when it is run again, as a notebook's cell is."""
    mark = "print('-- again')\n"
    return run_once(snippet + mark + snippet).split("-- again\n")[1]


def test_the_classifier_is_tapped():
    said = run_once(code("any-model.md")[0])
    *listed, moved = said.splitlines()
    assert sum("_add (1, " in line for line in listed) == 16 and float(moved) > 1e-3
    assert "resnet.conv1_conv:in (1, 70, 70, 3)" in said


def test_the_probabilities_of_keras_attention_are_found():
    *_, snippet = code("any-model.md")
    assert run_twice(snippet) == "(1, 2, 5, 5)\n"


@pytest.mark.parametrize(
    ("index", "told"),
    [
        (
            0,
            r"\noriginal\.layer_normalization\S* ε of a norm: with epsilon 0\.001 in place of",
        ),
        (2, r"^net\.second gives the first NaN: 1 of 4 numbers; .*are not finite: bias\n$"),
    ],
)
def test_ports_are_compared(index, told):
    assert re.search(told, run_twice(code("comparing-ports.md")[index]))


def test_every_link_leads_somewhere():
    for name in ("any-model.md", "comparing-ports.md"):
        for target in re.findall(r"\]\(([^)]+)\)", page(name)):
            assert (DOCS / target).exists(), target
