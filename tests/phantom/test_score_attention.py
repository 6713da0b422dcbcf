"""The score of heat maps: its masks, its baselines, its controls, and its smallest run."""

import json
import sys

import numpy as np
import pytest

from phantom import score_attention
from phantom.score_attention import BOX, ORDER, OTHER, Maps, Row, Sight, baselines, masks_in
from phantom.world import for_evaluation, masks, render, scenes
from xray import measure, script
from xray.measure import Estimate


@pytest.mark.parametrize("count", [1, 2])
def test_masks_in_a_rendered_scene_are_its_own(count):
    told = scenes(5, 4, for_evaluation, count)
    for scene in told:
        found, known = masks_in(render(scene)), masks(scene)
        assert found.keys() == known.keys()
        agree = [float(measure.iou(found[word], known[word])) for word in known]
        assert min(agree) > 0.7 and np.mean(agree) > 0.85, scene.caption


def test_baselines_are_a_box_and_the_maps_of_other_words():
    mask = np.zeros((6, 64, 64), bool)
    mask[:4, :32, :32] = True  # things take a quarter
    mask[4:] = True
    kinds = np.array(["alone", "of two", "of two", "alone", "background", "background"])
    ours = np.arange(6.0)[:, None, None] * np.ones((64, 64))
    made = baselines(Maps(np.arange(6), kinds, mask, {"ours": ours}))
    assert made[OTHER][:, 0, 0].tolist() == [2, 3, 0, 1, 5, 4]
    assert made[BOX].mean((-2, -1)).tolist() == [0.25] * 4 + [1.0] * 2
    assert made[BOX][0, 16:48, 16:48].all()


def test_the_control_fails_where_chance_does_as_well():
    def rows(ours: float) -> list[Row]:
        scores = {"ours": ours, "DAAM": 0.9, OTHER: 0.3, BOX: 0.2}
        told = {m: Estimate(iou, iou - 0.05, iou + 0.05, 9) for m, iou in scores.items()}
        return [Row("scenes", "things", m, 9, 0.5, iou, iou, iou) for m, iou in told.items()]

    score_attention.check(rows(0.41))
    with pytest.raises(SystemExit, match="control failed"):
        score_attention.check(rows(0.39))


@pytest.mark.parametrize(
    ("named", "word", "other"),
    [
        (["cat", "apple", "red"], "cat", "apple"),
        (["cat", "apple", "red"], "red", "cat"),
        (["cat", "red"], "cat", "red"),
        (["cat"], "cat", "a"),
    ],
)
def test_another_word_is_the_other_thing_if_there_is_one(named, word, other):
    masks = dict.fromkeys(named, np.ones((64, 64), bool))
    told = [("a", (1,)), ("cat", (2,)), ("on", (3,)), ("red", (4,))]
    assert score_attention.another(word, Sight([], 0, told, masks)) == other


def test_bars_show_every_score_of_both_kinds_of_pictures():
    told = {"ours": Estimate(0.5, 0.4, 0.6, 9), "DAAM": Estimate(0.3, 0.2, 0.4, 9)}
    figure = score_attention.draw({"scenes": told, "drawn": told}, "a title")
    for axes in figure.axes:
        assert [bar.get_width() for bar in axes.patches] == [0.5, 0.3]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["ours", "DAAM"]


@pytest.mark.parametrize("words", [["--scenes", "0"], ["--tuning", "0"], ["--batch", "0"]])
def test_no_scenes_are_refused(words, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["score_attention", *words, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        script.run(score_attention.main)
    assert stop.value.code == 2 and "try --scenes 200" in capfd.readouterr().err
    assert not any(tmp_path.iterdir())


def test_the_smallest_run(tmp_path, monkeypatch, capfd):
    words = {"scenes": 4, "tuning": 4, "steps": 4, "batch": 4, "out": tmp_path}
    argv = [part for name, value in words.items() for part in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["score_attention", *argv])
    monkeypatch.setattr(score_attention, "CHOICES", {"steps": ("equal", "late")})
    script.run(score_attention.main)
    (folder,) = (tmp_path / "score_attention").iterdir()
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    told = {(row["pictures"], row["group"], row["method"]) for row in report["table"]}
    assert {("scenes", "things", method) for method in ORDER} < told
    assert {("drawn", "background", method) for method in ORDER} < told
    assert report["tried"][0]["iou"] == max(one["iou"] for one in report["tried"])
    assert (folder / "score.png").stat().st_size > 10_000
    said, complained = capfd.readouterr()
    assert complained == "" and "chosen on 4 other scenes" in said and "another word" in said
