"""The script that knocks out blocks and heads: what a knock-out does, and the smallest run."""

import csv
import json
import operator

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_unet_ablation as experiment
from phantom.world import Scene, Thing, render
from stable_diffusion_tf import StableDiffusion
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray import rounding
from xray.methods import ablation, drawing
from xray.methods.ablation import Knockout
from xray.probe import Edit
from xray.probe.instrumented import instrument

pytestmark = pytest.mark.usefixtures("loaded")

CROSS = "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn2"
HIDDEN = "unet.down_blocks.1.resnets.0.hidden"
SMALLEST = ["a cat", "--steps", 1, "--batch", 2]


@pytest.fixture(scope="module")
def found(sd) -> tuple:
    return ablation.find_knockouts(sd)


@pytest.fixture(scope="module")
def lcm(tmp_path_factory) -> StableDiffusion:
    """A small latent consistency model, which has no two halves."""
    folder = tmp_path_factory.mktemp("lcm")
    with np.load(GOLDEN) as found:
        oracles.write(folder, oracles.LCM, json.loads(str(found["lcm/names"])))
    return StableDiffusion.load(folder)


@pytest.fixture
def few(found, monkeypatch) -> None:
    """Only one block, and the heads of one layer, are knocked out."""
    places, knockouts = found
    kept = [(tap, one) for tap in places for one in knockouts if one.address == tap.address]
    kept = [(tap, one) for tap, one in kept if tap.address in (HIDDEN, f"{CROSS}.probs")]
    chosen = list({tap.address: tap for tap, _ in kept}.values()), [one for _, one in kept]
    monkeypatch.setattr(experiment, "find_knockouts", lambda _: chosen)


def test_every_block_and_every_head_is_found_in_order_of_execution(found):
    places, knockouts = found
    kinds = [one.kind for one in knockouts]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "residual block": 11,
        "self-attention": 7,
        "head": 28,
        "cross-attention": 7,
        "feed-forward": 7,
        "skip": 6,
    }
    assert len(set(knockouts)) == 66 and len(places) == 45
    assert knockouts[0].place == "down 0.0" and knockouts[-1].place == "up 2.1"
    assert "mid 1" in {one.place for one in knockouts}


def test_a_mask_is_zero_where_its_row_says_in_both_halves(found):
    places, knockouts = found
    block = Knockout(HIDDEN, "residual block")
    head = Knockout(f"{CROSS}.probs", "head", 2)
    assert block in knockouts and head in knockouts
    made = ablation.masks(places, [block, None, head])
    assert {tap.address: (6, *tap.shape[1:]) for tap in places} == {
        address: mask.shape for address, mask in made.items()
    }
    off = {address: np.argwhere(mask == 0) for address, mask in made.items() if not mask.all()}
    assert set(off) == {block.address, head.address}
    assert set(off[block.address][:, 0]) == {0, 3}
    assert {(row, one) for row, one, *_ in off[head.address]} == {(2, 2), (5, 2)}
    assert not made[block.address][[0, 3]].any() and not made[head.address][[2, 5], 2].any()


@pytest.mark.arithmetic
def test_a_knockout_is_an_edit_that_zeroes_and_leaves_the_other_rows(sd, found):
    places, _ = found
    some = [Knockout(HIDDEN, ""), Knockout(f"{CROSS}.probs", "", 1), Knockout(CROSS, "")]
    context, uncond = np.split(sd.encode_text(["a cat", ""]), 2)
    run, noise = {"uncond": uncond, "steps": 1, "guidance": 4.0}, sd.draw_noise(0, 4)
    untouched, ended = ablation.knock_out(sd, places, some, context, noise, run)

    def off(row):
        keep = np.arange(8) % 4 != row
        return lambda x: x * np.expand_dims(keep, [*range(1, len(x.shape))]).astype(np.float32)

    edits = [Edit(HIDDEN, off(0)), Edit(f"{CROSS}.probs", off(1), heads=[1]), Edit(CROSS, off(2))]
    edited = instrument(sd, edits=edits)
    expected = drawing.draw(edited, np.repeat(context, 4, 0), np.repeat(noise[:1], 4, 0), run)
    rows = np.repeat(context, 4, 0), np.repeat(noise[:1], 4, 0)
    same = np.stack([d(sd, *rows, run) for d in (drawing.draw, rounding.redrawn)])
    same = same.reshape(-1, *same.shape[2:])
    assert rounding.hold(ended, expected[:3], same).passed
    assert rounding.hold(untouched[0], expected[3], same).passed  # another row
    assert not rounding.hold(ended, expected[[1, 2, 0]], same).passed, "the wrong rows"
    assert np.all(experiment.apart(expected[:3], untouched[0]) > 1e-4)


@pytest.mark.arithmetic
def test_a_latent_consistency_model_is_knocked_out_too(lcm):
    places, knockouts = ablation.find_knockouts(lcm)
    context, uncond = np.split(lcm.encode_text(["a cat", ""]), 2)
    run, noise = {"uncond": uncond, "steps": 1, "guidance": 4.0}, lcm.draw_noise(0, 2)
    untouched, ended = ablation.knock_out(lcm, places, knockouts[:2], context, noise, run)
    plain = drawing.draw(lcm, np.repeat(context, 2, 0), noise, run)
    again = rounding.redrawn(lcm, np.repeat(context, 2, 0), noise, run)
    assert rounding.hold(untouched, plain, [plain, again]).passed
    assert np.all(experiment.apart(ended, plain[0]) > 0)


def test_the_judge_tells_what_a_picture_lacks():
    scene = Scene("purple", (120, 60, 180), (Thing("rabbit", "", 4, 4),), "")
    images = render(scene)[None] / np.float32(127.5) - 1
    prompts = ["a rabbit on purple", "a rabbit above a cat", "a painting", "rabbits"]
    assert [experiment.lacks(images, prompt)[0] for prompt in prompts] == [
        False,
        True,
        False,
        False,
    ]
    assert not experiment.lacks(images[:, ::2, ::2], "a cat").any(), "of no such size"


def test_distances_have_their_units():
    white, black = np.ones((1, 4, 4, 3)), -np.ones((4, 4, 3))
    assert experiment.distance(white, black) == pytest.approx([100])
    assert experiment.apart(np.full((1, 2, 2, 4), 3.0), np.full((2, 2, 4), 2.0)) == [0.5]


@pytest.mark.arithmetic
def test_it_saves_sheet_table_and_pictures(few, tmp_path, monkeypatch, capfd):
    call(experiment.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_unet_ablation")
    assert spread(folder / "ablation.png") > 10
    with (folder / "ablation.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[:3] == ["address", "kind", "head"]
    assert [row[2] for row in rows] == ["", "0", "1", "2", "3"]
    assert all(float(row[3]) > 0 and float(row[4]) > 0 for row in rows)
    pictures = load_file(folder / "pictures.safetensors")
    assert pictures["knocked_out"].shape == (5, 64, 64, 3)
    far = experiment.distance(pictures["knocked_out"], pictures["untouched"])
    assert far == pytest.approx([float(row[3]) for row in rows], abs=2e-3)
    said, complained = capfd.readouterr()
    assert complained == "" and "5 knock-outs" in said and "everything times one: " in said


def test_the_control_fails_where_the_instrument_changes_the_picture(
    few, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(operator, "mul", lambda value, given: value * given * 1.001)
    with pytest.raises(SystemExit, match="control failed"):
        call(experiment.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    assert "everything times one: differs by 0.0" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch", "1"], "batch of 1 has no second picture"),
        (["--steps", "0"], "steps must be from 1 to 1000"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(experiment.main, words, told, tmp_path / "out", monkeypatch, capfd)
