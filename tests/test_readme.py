"""Every command in the README does what it says."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.gallery.pages import read_story
from experiments.gallery.published import BLOCKS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def lines(language: str) -> list[str]:
    return [line for block in blocks(language) for line in block.splitlines()]


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def scripts_of(target: str) -> list[str]:
    """The scripts that a target of the Makefile starts."""
    return [w for w in run(["make", "-n", target], ROOT).splitlines() if "experiments/" in w]


def in_this_python(line: str, out: Path) -> list[str]:
    """A README line with this interpreter for the one in .venv, saving elsewhere."""
    words = shlex.split(line.replace("\\", "/"))
    return [sys.executable, *words[1:], *(["--out", str(out)] if "experiments" in line else [])]


def test_the_shell_commands_are_the_known_ones():
    assert lines("sh")[:2] == ["make run", "make test"]
    for target in (
        *("run", "lab", "test", "arithmetic", "keras", "gallery", "parity", "bench", "phantom"),
        *("browser-test", "ray-test"),
    ):
        assert run(["make", "-n", target], ROOT)
        assert f"make {target}" in README


FIRST, *OTHERS = [*scripts_of("run"), *lines("sh")[2:], lines("bat")[2]]


def test_the_first_script_line_draws(tmp_path):
    check_saved(run(in_this_python(FIRST, tmp_path), ROOT), tmp_path)


@pytest.mark.parametrize("line", OTHERS)
def test_each_script_line_draws(line, loaded, tmp_path, monkeypatch, capsys):
    _, *words = in_this_python(line, tmp_path)
    as_module = words[0] == "-m"
    monkeypatch.setattr(sys, "argv", words[as_module:])
    monkeypatch.delitem(sys.modules, sys.argv[0], raising=False)  # another test may have asked
    (runpy.run_module if as_module else runpy.run_path)(sys.argv[0], run_name="__main__")
    check_saved(capsys.readouterr().out, tmp_path)


def check_saved(said: str, out: Path) -> None:
    """A script tells of files in the folder that it was handed, and they are there."""
    saved = [Path(word) for word in said.split() if word.startswith(str(out))]
    assert saved and all(path.exists() for path in saved)


def test_every_question_leads_to_its_script_and_picture():
    for name in (name for block in BLOCKS.values() for name in block):
        asked = f"| {read_story(name).question} | [`{name}.py`](experiments/{name}.py) | "
        assert f"{asked}[picture](docs/gallery/{name}.md) |" in README


def test_the_requirements_that_windows_installs_are_what_runs_here():
    command = in_this_python(lines("bat")[1], ROOT)
    assert command[1:] == ["-m", "pip", "install", "-r", "requirements.txt"]
    run([*command, "--no-index", "--disable-pip-version-check"], ROOT)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_runs(code, loaded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = []
    for _ in range(2):  # as in a notebook, whose cells are run twice
        exec(code, {"__name__": "__main__"})
        said.append(capsys.readouterr().out)
    assert said[0] and said[0] == said[1]
    assert ("replay" in code) == ("identical: 113" in said[0])


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target.partition("#")[0]).exists(), target
