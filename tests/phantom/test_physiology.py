"""What is measured of a phantom: on planted pictures where that can be, else the smallest run."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from phantom.judge import Findings, Match
from phantom.physiology import examinations, sheet
from phantom.physiology import patient as physiology
from phantom.physiology.__main__ import main
from phantom.physiology.patient import Drawn, Row
from phantom.train.contexts import ends_of
from phantom.world import THINGS, for_evaluation, scenes, wording
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import EOS
from xray import script
from xray.measure import mean_of

TWO = 2  # prompts, steps and rows of a batch


@pytest.fixture(scope="module")
def patient(sd) -> physiology.Patient:
    return physiology.admit(sd, TWO, TWO, 4.0, 0, TWO)


@pytest.fixture
def asked(monkeypatch) -> list[np.ndarray]:
    """The contexts that were to be drawn; every picture shows nothing."""
    contexts = []

    def drawn(patient, these, *_):
        contexts.append(these)
        latents = patient.noise * (1 + len(contexts))
        return Drawn(latents, [Findings("red", (255, 0, 0), ())] * len(these))

    monkeypatch.setattr(examinations, "drawn", drawn)
    return contexts


def test_each_token_is_of_one_kind(patient):
    counts = {name: own.sum(axis=1) for name, own in patient.spans.items()}
    assert (counts["start"] == 1).all() and (counts["end"] == 1).all()
    np.testing.assert_array_equal(counts["words"], ends_of(patient.ids, EOS) - 1)
    np.testing.assert_array_equal(sum(counts.values()), 77)


def test_shares_of_attention_add_up(patient):
    rows = [row for row in examinations.attention_shares(patient) if row.part == "attention"]
    assert [row.case for row in rows] == [*physiology.SPANS]
    assert sum(row.value.value for row in rows) == pytest.approx(100, abs=1e-3)


def test_half_of_the_things_is_half(patient):
    shown = [
        Findings("red", (255, 0, 0), tuple(Match(thing, 1.0) for thing in scene.things[:count]))
        for scene, count in zip(patient.told, (2, 0), strict=True)
    ]
    assert physiology.things_found(patient.told, shown).value == 50
    assert physiology.things_found(patient.told[::-1], shown).value == 0


def test_vectors_of_the_next_prompt_are_put_in_and_no_others(patient, asked):
    names = {row.case.partition(":")[0] for row in examinations.patching(patient)}
    own, ends, spans = patient.contexts, ends_of(patient.ids, EOS), patient.spans
    goal, *contexts = asked
    np.testing.assert_array_equal(goal, np.roll(own, -1, axis=0))
    found = dict(zip(examinations.PATCHED, contexts, strict=True))
    assert names == found.keys()
    np.testing.assert_array_equal(found["nothing"], own)
    for part, kinds in (("end", ["end"]), ("padding", ["padding"])):
        changed = (found[part] != own).any(axis=-1)
        assert not changed[~spans[kinds[0]]].any() and changed[spans[kinds[0]]].any()
    np.testing.assert_array_equal(found["end"][0, ends[0]], own[1, ends[1]])
    np.testing.assert_array_equal(found["words"][0, 1 : ends[1]], own[1, 1 : ends[1]])
    np.testing.assert_array_equal(found["end and padding"][0, 1 : ends[0]], own[0, 1 : ends[0]])


def test_attention_that_is_taken_goes_to_the_rest():
    probs = np.array([0.5, 0.3, 0.2], np.float32)
    kept = np.asarray(physiology.renormalised(probs, np.array([0, 1, 1], np.float32)))
    np.testing.assert_allclose(kept, [0, 0.6, 0.4], atol=1e-6)


def test_the_word_of_the_first_thing_is_found(patient):
    for row, scene in enumerate(patient.told):
        (places,) = np.nonzero(examinations.word_of(patient, row))
        words = dict(patient.sd.tokenizer.words(wording(scene)))
        assert places[-1] == words[scene.things[0].name.split()[-1]][-1]


def test_every_level_is_ablated_and_the_middle_as_one(patient, asked):
    rows = [*examinations.ablation(patient)]
    cases = [row.case for row in rows if row.part == "ablated"]
    assert cases[0] == "nothing" and len({*cases}) == len(cases) == len(asked)
    assert {"down 0", "down 1", "middle", "up 1", "skip up 1.1"} <= {*cases}
    assert {row.part for row in rows} == {"ablated", "ablated, background", "ablated, moved by"}


def test_a_prompt_that_gives_way_at_once_is_never_drawn(patient, monkeypatch):
    walked = []
    walk = examinations.walk

    def seen(patient, contexts, x, first, last):
        walked.append((first, last))
        return walk(patient, contexts, x, first, last)

    monkeypatch.setattr(examinations, "walk", seen)
    monkeypatch.setattr(physiology, "decode", lambda sd, x: np.zeros((len(x), 64, 64, 3)))
    assert not [*examinations.layout(patient)]  # blank pictures stand nowhere
    assert walked[:2] == [(0, 0), (0, TWO)] and walked[-1] == (TWO, TWO)


def test_a_side_is_right_where_both_things_stand_as_told(patient):
    told = patient.told
    right = [Findings("red", (0, 0, 0), tuple(Match(t, 1.0) for t in s.things)) for s in told]
    assert physiology.sides_found(told, right).value == 100
    turned = [
        replace(
            one,
            matches=tuple(
                replace(m, thing=replace(m.thing, name=n))
                for m, n in zip(one.matches, [m.thing.name for m in one.matches][::-1], strict=True)
            ),
        )
        for one in right
    ]
    assert physiology.sides_found(told, turned).value == 0
    assert physiology.sides_found(told, [Findings("red", (0, 0, 0), ())] * TWO) is None
    assert (
        physiology.backgrounds_found(
            told, [replace(r, background=s.background) for r, s in zip(right, told, strict=True)]
        ).value
        == 100
    )


def test_how_far_latents_moved_is_told_in_their_own_size():
    before = np.ones((2, 4, 4, 4))
    assert physiology.moved(before, before * 1.5).value == pytest.approx(50)


def test_without_a_judge_all_else_is_measured(patient, monkeypatch):
    monkeypatch.setattr(physiology.Patient, "judged", False)
    parts = {
        row.part
        for examine in (
            examinations.patching,
            examinations.removal,
            examinations.word_weights,
            examinations.layout,
        )
        for row in examine(patient)
    }
    assert parts == {
        "patched, way to the other",
        "attention removed, moved by",
        "weight of a word, moved by",
    }


def test_the_smallest_run(loaded, tmp_path, monkeypatch, capfd):
    argv = ["--prompts", "2", "--steps", "2", "--batch", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["physiology", *argv])
    script.run(main)
    (folder,) = (tmp_path / "physiology").iterdir()
    table = json.loads((folder / "report.json").read_text("utf-8"))["table"]
    ways = {
        row["case"]: row["value"] for row in table if row["part"] == "patched, way to the other"
    }
    assert ways["nothing"] == pytest.approx(0, abs=1e-3) and len(ways) == 5
    assert (folder / "sheet.png").stat().st_size > 10_000
    said, complained = capfd.readouterr()
    assert complained == "" and "direction" in said


@pytest.mark.parametrize("prompts, batch", [("1", "1"), ("4", "10"), ("4", "0")])
def test_few_prompts_are_refused(prompts, batch, loaded, tmp_path, monkeypatch, capfd):
    argv = ["--prompts", prompts, "--batch", batch, "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["physiology", *argv])
    with pytest.raises(SystemExit) as stop:
        script.run(main)
    assert stop.value.code == 2 and "try --prompts 40" in capfd.readouterr().err


def test_the_sheet_has_a_panel_for_each_part():
    rows = [Row(part, "a case", mean_of(np.array([1.0, 2.0]))) for part in sheet.PANELS]
    figure = sheet.draw({row.part: {row.case: row.value} for row in rows}, "title")
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == [*sheet.PANELS.values()]


def test_neighbours_share_nothing():
    some = physiology.unlike(scenes(0, 90, for_evaluation, 2, THINGS), 30)
    names = [physiology.names_of(scene) for scene in some]
    for shift in (1, 2):
        assert not any(a & b for a, b in zip(names, names[shift:] + names[:shift], strict=True))
    with pytest.raises(UsageError, match="too few"):
        physiology.unlike(some[:1] * 9, 3)
