"""The pages do what they say."""

import re
from pathlib import Path

import pytest

from experiments.gallery import api

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def code(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page(name), re.DOTALL)


@pytest.fixture
def prints(capsys):
    """What a snippet prints; it is run twice, as a notebook's cell is."""

    def run(snippet: str) -> str:
        for _ in range(2):
            capsys.readouterr()
            exec(snippet, {"__name__": "__main__"})
        return capsys.readouterr().out

    return run


def test_the_classifier_is_tapped(prints):
    said = prints(code("any-model.md")[0])
    *listed, moved = said.splitlines()
    assert sum("_add (1, " in line for line in listed) == 16 and float(moved) > 1e-3
    assert "resnet.conv1_conv:in (1, 70, 70, 3)" in said


def test_the_probabilities_of_keras_attention_are_found(prints):
    *_, snippet = code("any-model.md")
    assert prints(snippet) == "(1, 2, 5, 5)\n"


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
def test_ports_are_compared(prints, index, told):
    assert re.search(told, prints(code("comparing-ports.md")[index]))


@pytest.mark.parametrize("snippet", code("recipes.md") + code("attribution.md") + code("sweeps.md"))
def test_a_recipe_runs(snippet, loaded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(snippet, {"__name__": "__main__"})
    said = capsys.readouterr().out
    assert ("maps.png" in snippet) == (tmp_path / "maps.png").exists() and said
    assert "identical" in said or "replay" not in snippet
    assert "likely cause: ε" in said or "compare_models" not in snippet


def test_there_are_recipes_and_words_enough():
    assert len(code("recipes.md")) >= 12
    assert len(re.findall(r"^\*\*", page("glossary.md"), re.MULTILINE)) >= 40


def test_the_api_is_that_of_the_docstrings():
    assert page("api.md") == api.page(), "run python -m experiments.gallery.api"
    assert "### xray.Film\n" in page("api.md") and "Raises UsageError" in page("api.md")


def test_every_link_leads_somewhere():
    for name in [path.name for path in DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)]+)\)", page(name)):
            assert (DOCS / target.partition("#")[0]).exists(), target
