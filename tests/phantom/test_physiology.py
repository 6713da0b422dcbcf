"""What is measured of a phantom: on planted pictures where that can be, else the smallest run."""

import numpy as np
import pytest

from phantom import physiology, physiology_sheet
from phantom.judge import Findings, Match
from phantom.physiology import Row
from phantom.train.contexts import ends_of
from phantom.world import CORE, for_evaluation, scenes
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import EOS
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
        return [Findings("red", (255, 0, 0), ())] * len(these)

    monkeypatch.setattr(physiology, "drawn", drawn)
    return contexts


def test_each_token_is_of_one_kind(patient):
    counts = {name: own.sum(axis=1) for name, own in patient.spans.items()}
    assert (counts["start"] == 1).all() and (counts["end"] == 1).all()
    np.testing.assert_array_equal(counts["words"], ends_of(patient.ids, EOS) - 1)
    np.testing.assert_array_equal(sum(counts.values()), 77)


def test_shares_of_attention_add_up(patient):
    rows = [row for row in physiology.attention_shares(patient) if row.part == "attention"]
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
    names = {row.case.partition(":")[0] for row in physiology.patching(patient)}
    own, ends, spans = patient.contexts, ends_of(patient.ids, EOS), patient.spans
    found = dict(zip(("nothing", "words", "end", "padding", "end and padding"), asked, strict=True))
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
        (places,) = np.nonzero(physiology.word_of(patient, row))
        words = dict(patient.sd.tokenizer.words(physiology.wording(scene)))
        assert places[-1] == words[scene.things[0].name.split()[-1]][-1]


def test_every_level_is_ablated_and_the_middle_as_one(patient, asked):
    cases = [row.case for row in physiology.ablation(patient)]
    assert cases[0] == "nothing" and len({*cases}) == len(cases) == len(asked)
    assert {"down 0", "down 1", "middle", "up 1", "skip up 2.1"} <= {*cases}


def test_a_prompt_that_gives_way_at_once_is_never_drawn(patient, monkeypatch):
    walked = []
    walk = physiology.walk

    def seen(patient, contexts, x, first, last):
        walked.append((first, last))
        return walk(patient, contexts, x, first, last)

    monkeypatch.setattr(physiology, "walk", seen)
    monkeypatch.setattr(physiology, "decode", lambda sd, x: np.zeros((len(x), 64, 64, 3)))
    assert not [*physiology.layout(patient)]  # blank pictures stand nowhere
    assert walked[:2] == [(0, 0), (0, TWO)] and walked[-1] == (TWO, TWO)


def test_the_sheet_has_a_panel_for_each_part():
    rows = [Row(part, "a case", mean_of(np.array([1.0, 2.0]))) for part in physiology_sheet.PANELS]
    figure = physiology_sheet.draw({row.part: {row.case: row.value} for row in rows}, "title")
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == [*physiology_sheet.PANELS.values()]


def test_neighbours_share_nothing():
    some = physiology.unlike(scenes(0, 90, for_evaluation, 2, CORE), 30)
    names = [physiology.names_of(scene) for scene in some]
    for shift in (1, 2):
        assert not any(a & b for a, b in zip(names, names[shift:] + names[:shift], strict=True))
    with pytest.raises(UsageError, match="too few"):
        physiology.unlike(some[:1] * 9, 3)
