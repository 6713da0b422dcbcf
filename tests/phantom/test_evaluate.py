"""How the phantom is judged: what counts, and the smallest run."""

import json
import sys

import numpy as np
import pytest

from phantom import evaluate
from phantom.judge import Findings, Match
from phantom.prompts import known_things
from phantom.world import THINGS, for_evaluation, scenes
from xray import script


def seen(scene, things):
    return Findings(scene.background, scene.colour, tuple(Match(t, 1.0) for t in things))


def test_a_picture_is_right_with_its_things_and_no_other():
    told = scenes(1, 4, for_evaluation, 1) + scenes(2, 4, for_evaluation, 2)
    right = [seen(scene, scene.things) for scene in told]
    crowded = [seen(scene, (*scene.things, told[-1].things[0])) for scene in told[:4]]
    rows = {row.what: row for row in evaluate.rate_pictures(told, right)}
    assert {row.reached for row in rows.values()} == {100.0}
    assert rows["two told: both are shown"].shuffled == 0
    rows = evaluate.rate_pictures(told, crowded + [seen(s, ()) for s in told[4:]])
    assert [row.reached for row in rows] == [0, 0, 0, 100]


def test_scenes_name_what_the_model_knows(sd):
    known = known_things(sd)
    assert {"cat", "apple"} < set(known) <= set(THINGS)
    told = evaluate.draw_scenes(0, 40, known)
    assert [len(scene.things) for scene in told] == [1] * 20 + [2] * 20
    assert {thing.name for scene in told for thing in scene.things} <= set(known)


def test_the_smallest_run(loaded, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(evaluate, "REAL", 6)
    argv = ["--prompts", "4", "--steps", "3", "--batch", "4", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["evaluate", *argv])
    script.run(evaluate.main)
    (folder,) = (tmp_path / "evaluate").iterdir()
    table = json.loads((folder / "report.json").read_text("utf-8"))["table"]
    found = {row["what"]: row["reached"] for row in table}
    assert found["judge right on real scenes"] == 100
    assert 15 < found["VAE round trip, PSNR"] < 60
    assert 10 < found["the same of a photograph, 256 px"] < 40
    assert (folder / "sheet.png").stat().st_size > 10_000
    said, complained = capfd.readouterr()
    assert complained == "" and "two told: both, side right" in said


def test_few_prompts_are_refused(loaded, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(sys, "argv", ["evaluate", "--prompts", "3", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        script.run(evaluate.main)
    assert stop.value.code == 2 and "try --prompts 300" in capfd.readouterr().err


def test_an_interval_of_a_share_is_wilsons():
    low, high = evaluate.wilson(9, 10)
    np.testing.assert_allclose((low, high), (59.6, 98.2), atol=0.05)
