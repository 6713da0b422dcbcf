"""The script on end and padding: its numbers on planted cases, its control, the smallest run."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import text_padding_and_end as padding
from experiments.text_padding_and_end import REPLACED
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray.measure import Estimate, share_of

pytestmark = pytest.mark.usefixtures("loaded")


def test_the_way_to_b_is_told_by_both_distances():
    a, b = np.zeros((2, 1, 1, 4)), np.ones((2, 1, 1, 4))
    latents = {"nothing": a, "words": a + 0.25, "B": b}
    assert padding.move(latents, "nothing").value == 0
    assert padding.move(latents, "words").value == pytest.approx(25)


def rows(column: str, **estimates: Estimate) -> dict[str, dict[str, Estimate]]:
    return {name: {column: one} for name, one in estimates.items()}


def test_no_span_carries_most_where_two_overlap():
    wide, above = Estimate(50, 30, 70, 4, "%"), Estimate(95, 90, 99, 4, "%")
    level = rows("moved to B", words=wide, end=wide, padding=wide)
    assert padding.find(level).startswith("No span alone carries most")
    clear = padding.find(level | rows("moved to B", end=above))
    assert clear == (
        "The end carries the prompt: replacing it alone turns latents 95.0 % [90.0, 99.0] of the "
        "way to B's."
    )


def test_judged_pictures_are_counted():
    none, all_ = (share_of(np.full(8, hit)) for hit in (False, True))
    told = padding.find(rows("B's things", words=none, end=none, padding=all_))
    assert "turns 8 of 8 pictures into B's [68, 100 %]." in told and len(told.split()) <= 25


SMALL = ["a cat", "a big dog", "--pictures", 2, "--steps", 1]


@pytest.mark.arithmetic
def test_it_saves_sheet_tensors_and_report(tmp_path, monkeypatch, capfd):
    call(padding.main, *SMALL, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text_padding_and_end")
    assert spread(folder / "figure.png") > 10
    saved = load_file(folder / "tensors.safetensors")
    assert saved["pictures"].shape == (len(REPLACED), 2, 64, 64, 3)
    assert saved["latents"].shape == (len(REPLACED) + 1, 2, 16, 16, 4)
    assert saved["contexts"].shape[:3:2] == (len(REPLACED), 77)
    np.testing.assert_array_equal(saved["latents"][0], saved["latents"][1])
    assert not np.array_equal(saved["latents"][0], saved["latents"][2])
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert report["control"]["passed"] and report["numbers"]["padding: B's things"]["n"] == 2
    said, complained = capfd.readouterr()
    assert complained == "" and "of 2" in said and f"finding  {report['finding']}" in said


def test_the_control_fails_where_the_start_is_not_only_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(padding.REPLACED, "start", ("start", "words"))
    with pytest.raises(SystemExit, match="control failed"):
        call(padding.main, *SMALL, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a cat", "A  cat"], "both prompts are the same"),
        (["cat " * 80], "leaves no padding"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(padding.main, words, told, tmp_path / "out", monkeypatch, capfd)
