"""The gallery: what it hears of a script, its pages, and that no experiment is left out."""

import re
from pathlib import Path

import pytest

from experiments.gallery import pages
from experiments.gallery.published import BESIDE, BLOCKS, Beside
from tests.experiments.test_scripts import call, spread

NAMES = [name for group in BLOCKS.values() for name in group]
SAID = """a table   1
  of two lines
finding  it is *so*, by 5 %
control  it is not so, by 0 %
picture  /a place/x.png
tensors  /a place/x.safetensors
"""


def test_every_experiment_is_shown_once():
    there = {path.stem for path in pages.EXPERIMENTS.glob("te[sx]t*.py")}
    assert sorted(NAMES) == sorted(there)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_asks_a_question_and_says_how_to_read_the_answer(name):
    story = pages.read_story(name)
    assert story.question.endswith("?") and len(story.question) < 100
    assert "control" in story.reading.lower()


def test_a_script_is_heard():
    told = pages.hear(SAID, 3.4)
    assert told.said == "a table   1\n  of two lines"
    assert told.finding == "it is *so*, by 5 %" and told.control == "it is not so, by 0 %"
    assert told.picture == Path("/a place/x.png")


def test_a_page_gives_question_picture_number_and_control():
    page = pages.write_page("x", pages.Story("Is <it>?", "Read it so."), pages.hear(SAID, 3))
    assert page.startswith("# Is \\<it\\>?\n\n![it is \\*so\\*, by 5 %](x.webp)\n")
    assert "**it is \\*so\\*, by 5 %**" in page and "Control: it is not so" in page
    assert "experiments/x.py" in page and "a table   1\n  of two lines\n```" in page
    assert pages.row("x", page)[:2] == ("[Is \\<it\\>?](x.md)", "it is \\*so\\*, by 5 %")


def test_published_figures_stand_beside_what_was_printed():
    beside = Beside("a share", "x", r"by (\S+ %)", "7 %", "smaller")
    written = {"x": pages.write_page("x", pages.Story("?", ""), pages.hear(SAID, 3))}
    assert pages.compare(beside, written) == ("[a share](x.md)", "7 %", "5 %", "smaller")
    assert pages.compare(beside, {}) is None
    with pytest.raises(ValueError, match="nothing like"):
        pages.compare(beside._replace(ours=r"by (\S+ dB)"), written)


def test_it_runs_a_script_and_leads_to_it(tmp_path, monkeypatch, capfd):
    call(pages.main, "test_image_encoder", "--out", tmp_path, monkeypatch=monkeypatch)
    said, complained = capfd.readouterr()
    assert complained == "" and re.match(r"test_image_encoder +\d+ s  grace_hopper", said)
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        "test_image_encoder.md",
        "test_image_encoder.webp",
    }
    assert spread(tmp_path / "test_image_encoder.webp") > 10
    index = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "(test_image_encoder.md)" in index and "(test_guidance.md)" not in index


def test_a_script_that_fails_is_named_and_the_others_are_drawn(tmp_path, monkeypatch, capfd):
    words = ["--weights", "nothing-such", "--out", tmp_path]
    with pytest.raises(SystemExit, match="1 failed: test_image_encoder"):
        call(pages.main, "test_image_encoder", *words, monkeypatch=monkeypatch)
    assert "FAILED: test_image_encoder.py: " in capfd.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_the_pages_that_are_shipped_say_what_is_compared():
    shipped = {
        path.stem: path.read_text(encoding="utf-8") for path in pages.GALLERY.glob("te[sx]t*.md")
    }
    assert sorted(shipped) == sorted(NAMES)
    assert all(pages.compare(beside, shipped) for beside in BESIDE)


def test_an_unknown_name_is_refused(tmp_path, monkeypatch, capfd):
    with pytest.raises(SystemExit):
        call(pages.main, "test_nothing", "--out", tmp_path, monkeypatch=monkeypatch)
    assert "no experiment test_nothing; choose from text2image" in capfd.readouterr().err
