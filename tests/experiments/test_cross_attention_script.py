"""The script of word heat maps: what it saves, what it says, and that its controls can fail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from experiments import test_cross_attention as experiment
from phantom.attribution.rating import BLIND, OWN, iou_of_things
from phantom.world import render, scenes
from stable_diffusion_tf import StableDiffusion
from tests import tiny
from tests.experiments.test_scripts import call, only, spread
from xray.measure import mean_of
from xray.methods import token_ablation
from xray.report import read_report
from xray.rounding import Held

pytestmark = pytest.mark.usefixtures("loaded")

PROMPT = "a rabbit left of a strawberry on a purple background"


@pytest.fixture
def scene(tmp_path) -> tuple[Path, str]:
    """A picture of two things, and its caption."""
    told = scenes(4, 1, lambda things, background: True, 2)[0]
    path = tmp_path / "scene.png"
    Image.fromarray(render(told)).save(path)
    return path, told.caption


def test_words_that_come_again_have_groups_of_their_own(sd):
    groups = token_ablation.groups_of(
        sd.tokenize("a cat on a mat")[0], sd.tokenizer.words("a cat on a mat")
    )
    assert [*groups][:5] == ["a", "cat", "on", "a#2", "mat"] and groups["a#2"] == [4]
    assert groups["<start>"] == [0] and groups["<end>"] == [6] and groups["<padding>"][0] == 7
    assert sorted(place for places in groups.values() for place in places) == [*range(77)]


@pytest.mark.arithmetic
def test_removing_the_attention_to_all_tokens_is_an_edit_that_zeroes(sd):
    from xray.probe import Edit
    from xray.probe.instrumented import instrument

    context, uncond = np.split(sd.encode_text(["a cat", ""]), 2)
    run, noise = {"uncond": uncond, "steps": 1, "guidance": 4.0}, sd.draw_noise(0, 1)
    groups = {"all": range(77), "cat": [2]}
    latents, shots = token_ablation.ablate_tokens(sd, groups, context, noise, run)
    for row, tokens in ((1, [*range(77)]), (2, [2])):
        edit = Edit("unet.*.attn2.probs", lambda p: p * 0, half="cond", tokens=tokens)
        (only_step,) = instrument(sd, edits=edit).denoise(context, latent=noise, **run)
        np.testing.assert_allclose(latents[0, row], only_step.x_prev[0], atol=1e-4)
    assert np.abs(latents[0, 1] - latents[0, 0]).max() > 0.01 and len(shots[0]) == 1


def test_a_latent_consistency_model_has_tokens_removed_too(tmp_path):
    unet = replace(tiny.DRAWING, time_cond_proj_dim=24)
    lcm = StableDiffusion.load(tiny.write_model(tmp_path, unet))
    asked = experiment.Options(prompt="a cat", pictures=2, steps=2)
    _, shots, far, held = token_ablation.draw_all(lcm, {"cat": [2]}, asked)
    assert held.passed and np.all(far["cat"] > 0)
    assert {len(value) for value in shots[0][0].values()} == {1}, "one prediction, not two halves"


def test_maps_are_scored_by_picture_beside_a_map_that_knows_no_word():
    mask, whole = np.zeros((8, 8), bool), np.ones((8, 8))
    mask[:4] = True
    maps = {"cat": whole * mask, "<start>": whole * ~mask.T}
    scores = iou_of_things([maps, maps], [{"cat": mask, "red": ~mask}, {}])
    assert mean_of(*scores[OWN]).value == 1 and mean_of(*scores[BLIND]).value == pytest.approx(
        1 / 3
    )
    assert iou_of_things([maps], [{"red": mask}]) == {}


@pytest.mark.arithmetic
def test_drawn_pictures_have_maps_a_score_and_what_removal_does(tmp_path, monkeypatch, capfd):
    words = [PROMPT, "--steps", 4, "--pictures", 2, "--out", tmp_path]
    call(experiment.main, *words, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_cross_attention")
    assert spread(folder / "figure.png") > 10
    found = load_file(folder / "tensors.safetensors")
    assert {"rabbit", "strawberry", "purple", "a", "a#2", "<start>", "<padding>"} <= found.keys()
    assert found["rabbit"].shape == (64, 64) and found["pictures"].shape == (2, 64, 64, 3)
    report, _ = read_report(folder / "report.json")
    assert report.numbers["<padding> removed"].n == 2 and report.control.passed
    assert report.numbers["<padding> removed"].value < report.numbers["rabbit removed"].value / 9
    assert capfd.readouterr().err == ""


@pytest.mark.arithmetic
def test_a_picture_that_exists_is_scored(scene, tmp_path, monkeypatch, capfd):
    path, caption = scene
    call(experiment.main, caption, path, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    report, _ = read_report(only(tmp_path / "out" / "test_cross_attention") / "report.json")
    assert report.numbers[OWN].value > 0.3 and report.control.passed
    assert "the start token's, which knows no word" in report.finding
    assert len(report.finding.split()) <= 25


def test_the_control_fails_where_looking_changes_the_picture(scene, tmp_path, monkeypatch):
    path, caption = scene
    look = token_ablation.look
    monkeypatch.setattr(token_ablation, "look", lambda *a: (look(*a)[0], Held(1e-3, 1e-6)))
    with pytest.raises(SystemExit, match="looking changed what the model computes"):
        call(experiment.main, caption, path, "--out", tmp_path / "out", monkeypatch=monkeypatch)


BAD = [
    ([""], "the prompt has no word"),
    (["a cat", "--guidance", "nan"], "guidance"),
    (["a cat", "{none}"], "there is no"),
    (["a cat", "{page}"], "cannot read"),
    (["a cat", "--weights", "{none}"], "no weights at"),
    (["a cat", "--image", "x.png"], "--image is called PICTURE now, and has no name in front"),
]


@pytest.mark.parametrize(("words", "told"), BAD, ids=[told for _, told in BAD])
def test_bad_input_is_one_line_and_status_2(words, told, tmp_path, monkeypatch, capfd):
    page = tmp_path / "page.png"
    page.write_text("<html>not found</html>")
    places = {"page": page, "none": tmp_path / "none"}
    with pytest.raises(SystemExit) as stop:
        given = [word.format(**places) for word in words]
        call(experiment.main, *given, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    said, complained = capfd.readouterr()
    assert stop.value.code == 2 and said == ""
    assert told in complained and complained.count("\n") == 1
    assert not (tmp_path / "out").exists()
