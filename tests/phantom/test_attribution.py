"""The benchmark of attribution: its masks, methods, sanity rows, scores, and its smallest run."""

import inspect
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from phantom import attribution
from phantom.attribution import benchmark, examples, heads, rating, sanity, search
from phantom.attribution.methods import METHODS, Method
from phantom.attribution.methods.grids import averaged, enlarged
from phantom.world import BACKGROUNDS, SIDE, for_evaluation, masks, render, scenes
from stable_diffusion_tf.errors import UsageError
from xray import measure, script
from xray.attention import DAAM
from xray.measure import Estimate

STEPS = 2
TRUE = "truth"


@pytest.fixture(scope="module")
def told(sd):
    return examples.told(sd, 3, 0)


@pytest.fixture(scope="module")
def looked(sd, told):
    return [*examples.looked_at(sd, told, 0, STEPS)]


def knowing(some) -> Method:
    """A method that knows the masks."""
    known = {id(one.case): one.masks for one in some}
    return lambda case: {word: mask.astype(float) for word, mask in known[id(case)].items()}


# --- examples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_masks_in_a_rendered_scene_are_its_own(count):
    for scene in scenes(5, 4, for_evaluation, count):
        found, known = examples.masks_in(render(scene)), masks(scene)
        assert found.keys() == known.keys()
        agree = [float(measure.iou(found[word], known[word])) for word in known]
        assert min(agree) > 0.7 and np.mean(agree) > 0.85, scene.caption


def test_what_is_lost_lies_where_the_word_is(looked, told):
    for one, scene in zip(looked, told, strict=True):
        for word, loss in one.losses.items():
            inside = measure.resize_by_area(one.masks[word].astype(float), 16, 16)
            assert measure.rank_correlation(loss, inside) > 0.6
            if word not in BACKGROUNDS:  # nothing else of the picture changes
                square = next(thing.window for thing in scene.things if thing.name == word)
                outside = np.ones((SIDE, SIDE))
                outside[square] = 0
                assert not loss[measure.resize_by_area(outside, 16, 16) == 1].any()


def test_a_case_can_be_told_other_words(looked):
    case = looked[0].case
    word = looked[0].things[0]
    assert word in case.prompt and word not in case.without(word) and "  " not in case.without(word)
    assert np.abs(case.noise() - case.noise(case.without(word))).max() > 1e-3
    np.testing.assert_array_equal(case.noise(), case.noise(case.prompt))
    one, same, other = case.redraw([case.prompt, case.prompt, case.without(word)]).astype(float)
    assert np.abs(one - same).max() <= 1 < np.abs(one - other).max()


def test_drawn_pictures_have_words_of_their_prompt(sd, told):
    for one in examples.drawn(sd, told[:1], 0, 4):
        assert one.masks.keys() == one.case.words.keys() and one.losses is None
        assert all(word in one.case.prompt for word in one.masks)
        assert (np.diff(one.case.times) < 0).all() and len(one.case.latents) == len(one.case.times)


# --- methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_short_and_gives_each_word_a_map_of_its_own(name, looked):
    method = METHODS[name]
    assert len(inspect.getsource(method).splitlines()) <= 40
    assert len(inspect.getdoc(method)) > 20
    case = looked[0].case
    found = method(case)
    assert found.keys() == case.words.keys()
    first, second = (found[word] for word in looked[0].things)
    assert first.ndim == 2 and np.isfinite(first).all() and first.std() > 0
    alike = 1 - 1e-6 if name == "cross- by self-attention" else 0.999  # it smooths nearly all away
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < alike


def test_layers_are_enlarged_to_the_finest_before_their_mean():
    fine, coarse = np.arange(16.0)[None], np.full((1, 4), 3.0)
    np.testing.assert_allclose(averaged([coarse, fine])[0], (fine.reshape(4, 4) + 3) / 2)
    np.testing.assert_allclose(enlarged(np.array([[0.0, 4.0]] * 2), 4)[0], [0, 1, 3, 4])


def test_the_best_heads_are_found(looked, monkeypatch):
    good = ("layer", 1)

    def planted(case):
        known = next(one for one in looked if one.case is case)
        for head in (("layer", 0), good, ("layer", 2)):
            right = head == good
            yield head, {w: (m if right else ~m) * 1.0 for w, m in known.masks.items()}

    monkeypatch.setattr(heads, "of_heads", planted)
    monkeypatch.setattr(heads, "COUNTS", (1, 2))
    method = heads.chosen_heads(looked[:2])
    for word, heat in method(looked[2].case).items():
        np.testing.assert_array_equal(heat, looked[2].masks[word])


# --- sanity ------------------------------------------------------------------------------------


def test_maps_that_know_nothing_of_their_word(looked):
    case, (a, b) = looked[0].case, looked[0].things
    start = sanity.start_token(case)
    np.testing.assert_array_equal(start[a], start[b])
    ours, turned = METHODS["ours"](case), sanity.another_word(case)
    np.testing.assert_array_equal(turned[a], ours[b])
    np.testing.assert_array_equal(turned[b], ours[a])
    box = sanity.centred_box(looked)(case)[a]
    sizes = [one.masks[word].mean() for one in looked for word in one.things]
    assert box.mean() == pytest.approx(np.mean(sizes), rel=0.3) and box[SIDE // 2, SIDE // 2] == 1


def test_weights_are_shuffled_where_they_are_meant_to_be(sd):
    from keras import ops

    other = sanity.randomised(sd, "mid_block", np.random.default_rng(0))
    pairs = zip(*(m.network("unet").trainable_variables for m in (sd, other)), strict=True)
    for own, new in pairs:
        a, b = map(ops.convert_to_numpy, (own, new))
        np.testing.assert_array_equal(np.sort(a.ravel()), np.sort(b.ravel()))
        if a.std() > 0:
            assert np.array_equal(a, b) == ("mid_block" not in own.path.replace("-", ".")), own.path


def test_the_ceiling_is_the_mask(looked):
    for side, least, mean in ((16, 0.8, 0.85), (8, 0.5, 0.65)):  # a small thing is of few cells
        maps = benchmark.on_grid(sanity.ceiling(side)(looked[0].masks))
        met = [measure.iou_at(heat, looked[0].masks[word], 0.5) for word, heat in maps.items()]
        assert min(met) > least and np.mean(met) > mean


# --- scores ------------------------------------------------------------------------------------


def test_a_method_that_knows_the_masks_is_right_and_its_opposite_wrong(looked):
    true = knowing(looked)
    methods = {TRUE: true, "wrong": lambda case: {w: 1 - m for w, m in true(case).items()}}
    words = [word for word in benchmark.seen(looked, methods) if word.is_thing]
    row, wrong = (rating.rate(words, name, 0.5) for name in methods)
    assert (row.iou.value, row.mass.value, row.pointing.value, row.leakage.value) == (1, 1, 1, 0)
    assert row.causal.value > 0.6 and row.words == len(words) == 6 and row.iou.n == 3
    assert (wrong.iou.value, wrong.pointing.value, wrong.leakage.value) == (0, 0, 1)
    assert wrong.causal.value < -0.6
    assert rating.best_share(words, TRUE) > 0


def test_words_of_other_prompts_are_words_of_their_group(looked):
    words = benchmark.seen(looked, {"ours": knowing(looked)})
    for word, turned in zip(words, benchmark.with_derived(words), strict=True):
        given = turned.maps[benchmark.SHUFFLED]
        (source,) = [i for i, w in enumerate(words) if w.maps["ours"] is given]
        assert words[source].is_thing == word.is_thing and words[source].picture != word.picture


def test_a_users_method_is_scored(sd, looked, monkeypatch):
    monkeypatch.setattr(benchmark, "load", lambda weights: sd)
    row = attribution.score(METHODS["DAAM"], scenes=2, tuning=2)
    assert row.method == "daam" and row.words == 4 and 0 < row.iou.value < 1
    with pytest.raises(UsageError, match="scenes and tuning are 2 or more"):
        attribution.score(METHODS["DAAM"], scenes=1)
    for wrong in (lambda _: {}, lambda c: dict.fromkeys(c.words, np.full((2, 2), np.nan))):
        with pytest.raises(UsageError, match="a method gives a map"):
            benchmark.seen(looked, {"it": wrong})


def test_the_control_fails_where_chance_does_as_well():
    def rows(ours: float) -> list[rating.Row]:
        scores = {"ours": ours, benchmark.SHUFFLED: 0.3, "a box in the middle": 0.2}
        told = {m: Estimate(iou, iou - 0.05, iou + 0.05, 9) for m, iou in scores.items()}
        return [rating.Row(m, 9, 0.5, *[iou] * 5) for m, iou in told.items()]

    benchmark.check("it", rows(0.41))
    with pytest.raises(SystemExit, match=r"the control failed \(it\)"):
        benchmark.check("it", rows(0.39))


# --- the commands ------------------------------------------------------------------------------


def call(main, monkeypatch, **words) -> None:
    argv = [part for name, value in words.items() for part in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["attribution", *argv])
    script.run(main)


def test_the_smallest_run(loaded, tmp_path, monkeypatch, capfd):
    few = {name: METHODS[name] for name in ("DAAM", "ours")}
    monkeypatch.setattr(benchmark, "METHODS", few)
    monkeypatch.setattr(benchmark, "check", lambda *_: None)
    monkeypatch.setattr("stable_diffusion_tf.progress.EVERY", 1e9)  # however slow the machine is
    call(benchmark.main, monkeypatch, scenes=2, tuning=2, steps=3, out=tmp_path)
    (folder,) = (tmp_path / "attribution").iterdir()
    table = json.loads((folder / "report.json").read_text(encoding="utf-8"))["tables"]["phantom"]
    names = {row["method"] for row in table["scenes"]["things"]}
    assert {*few, *sanity.RANDOM, *sanity.CEILINGS, benchmark.SHUFFLED, "learned heads"} < names
    assert table["scenes"]["background"][0]["leakage"] is None
    assert all(row["causal"] is None for row in table["drawn"]["things"])
    assert (folder / "attribution.png").stat().st_size > 10_000
    said, complained = capfd.readouterr()
    assert complained == "" and "another word of its prompt" in said


def test_the_search_begins_with_daam_and_tells_the_best(loaded, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(search, "TOGETHER", [("nothing", "none", "equal")])
    monkeypatch.setattr(search, "CHOICES", {"steps": ("equal", "late")})
    call(search.main, monkeypatch, scenes=2, out=tmp_path)
    (folder,) = (tmp_path / "attribution_search").iterdir()
    tried = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [one["iou"] for one in tried] == sorted((one["iou"] for one in tried), reverse=True)
    assert "DAAM's own" in capfd.readouterr().out
    assert search.not_daam(replace(DAAM, steps="late")) == "steps='late'"


@pytest.mark.parametrize("words", [{"scenes": 0}, {"tuning": 1}, {"steps": 0}])
def test_no_scenes_are_refused(words, tmp_path, monkeypatch, capfd):
    with pytest.raises(SystemExit) as stop:
        call(benchmark.main, monkeypatch, out=tmp_path, **words)
    assert stop.value.code == 2 and "try --scenes 100" in capfd.readouterr().err
    assert not any(tmp_path.iterdir())
