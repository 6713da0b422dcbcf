"""The script of word heat maps: what it saves, what it says, and that its controls can fail."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from experiments import test_cross_attention as script_here
from phantom.world import render, scenes
from xray import attention, script
from xray.rounding import Held

pytestmark = pytest.mark.usefixtures("loaded")

PROMPT = "a rabbit left of a strawberry on a purple background"


def call(*words: object, monkeypatch) -> None:
    """Run the script's main as the shell would."""
    monkeypatch.setattr(sys, "argv", ["test_cross_attention.py", *map(str, words)])
    script.run(script_here.main)


def folder_in(out: Path) -> Path:
    (folder,) = (out / "test_cross_attention").iterdir()
    return folder


@pytest.fixture
def scene(tmp_path) -> tuple[Path, str]:
    """A picture of two things, and its caption."""
    told = scenes(4, 1, lambda things, background: True, 2)[0]
    path = tmp_path / "scene.png"
    Image.fromarray(render(told)).save(path)
    return path, told.caption


@pytest.mark.arithmetic
def test_a_drawn_picture_has_a_film_maps_and_a_score(tmp_path, monkeypatch, capfd):
    call(PROMPT, "--steps", 8, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = folder_in(tmp_path)
    assert json.loads((folder / "film.json").read_text(encoding="utf-8"))["prompt"] == PROMPT
    found = load_file(folder / "maps.safetensors")
    assert {"rabbit", "strawberry", "purple", "a", "a#2", "<start>", "<padding>"} <= found.keys()
    assert all(heat.shape == (64, 64) for heat in found.values())
    with Image.open(folder / "maps.png") as sheet:
        assert np.asarray(sheet.convert("RGB"), float).std() > 10
    said, complained = capfd.readouterr()
    assert complained == "" and "with probes and without: " in said
    assert "rabbit         covers" in said and str(folder / "maps.png") in said


@pytest.mark.arithmetic
def test_a_picture_that_exists_is_scored_and_the_controls_can_fail(
    scene, tmp_path, monkeypatch, capfd
):
    path, caption = scene
    words = [caption, "--image", path, "--out"]
    seen, examine, word_maps = [], script_here.examine, attention.word_maps
    monkeypatch.setattr(script_here, "examine", lambda *a: seen.append(examine(*a)) or seen[0])
    call(*words, tmp_path / "true", monkeypatch=monkeypatch)
    folder = folder_in(tmp_path / "true")
    assert sorted(p.name for p in folder.iterdir()) == ["maps.png", "maps.safetensors"]
    said, _ = capfd.readouterr()
    assert said.count("IoU with its mask") == 2 == said.count("control, another thing's map")

    monkeypatch.setattr(script_here, "examine", lambda *_: (seen[0][0], Held(1e-3, 1e-6)))
    with pytest.raises(SystemExit, match="looking changed what the model computes"):
        call(*words, tmp_path / "changed", monkeypatch=monkeypatch)

    def swapped(*given):
        found = word_maps(*given)
        told = [word for word in found if word not in attention.SPECIAL]
        return found | dict(zip(told, [found[word] for word in reversed(told)], strict=True))

    monkeypatch.setattr(script_here, "examine", lambda *_: seen[0])
    monkeypatch.setattr(attention, "word_maps", swapped)
    with pytest.raises(SystemExit, match="the map of another thing does as well"):
        call(*words, tmp_path / "swapped", monkeypatch=monkeypatch)


BAD = [
    ([""], "the prompt has no word"),
    (["a cat", "--steps", "0"], "steps must be from 1 to 1000"),
    (["a cat", "--guidance", "nan"], "guidance"),
    (["a cat", "--image", "{none}"], "there is no"),
    (["a cat", "--image", "{page}"], "cannot read"),
    (["a cat", "--weights", "{none}"], "no weights at"),
]


@pytest.mark.parametrize(("words", "told"), BAD, ids=[told for _, told in BAD])
def test_bad_input_is_one_line_and_status_2(words, told, tmp_path, monkeypatch, capfd):
    page = tmp_path / "page.png"
    page.write_text("<html>not found</html>")
    places = {"page": page, "none": tmp_path / "none"}
    with pytest.raises(SystemExit) as stop:
        given = [word.format(**places) for word in words]
        call(*given, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    said, complained = capfd.readouterr()
    assert stop.value.code == 2 and said == ""
    assert told in complained and complained.count("\n") == 1
    assert not (tmp_path / "out").exists()
