"""The script that ablates blocks and heads: what an ablation does, and the smallest run."""

import json
import operator

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_unet_ablation as experiment
from phantom.prompts import Marks
from stable_diffusion_tf import StableDiffusion
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray import measure, rounding
from xray.measure import mean_of, share_of
from xray.methods import ablation, drawing
from xray.methods.ablation import Ablation
from xray.probe import Edit
from xray.probe.instrumented import instrument
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

CROSS = "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn2"
HIDDEN = "unet.down_blocks.1.resnets.0.hidden"
SMALLEST = ["a cat", "--steps", 1, "--pictures", 2]


@pytest.fixture(scope="module")
def found(sd) -> tuple:
    return ablation.find_ablations(sd)


@pytest.fixture(scope="module")
def lcm(tmp_path_factory) -> StableDiffusion:
    """A small latent consistency model, which has no two halves."""
    folder = tmp_path_factory.mktemp("lcm")
    with np.load(GOLDEN) as found:
        oracles.write(folder, oracles.LCM, json.loads(str(found["lcm/names"])))
    return StableDiffusion.load(folder)


@pytest.fixture
def few(found, monkeypatch) -> None:
    """Only one block, and the heads of one layer, are ablated."""
    places, ablations = found
    kept = [(tap, one) for tap in places for one in ablations if one.address == tap.address]
    kept = [(tap, one) for tap, one in kept if tap.address in (HIDDEN, f"{CROSS}.probs")]
    chosen = list({tap.address: tap for tap, _ in kept}.values()), [one for _, one in kept]
    monkeypatch.setattr(experiment, "find_ablations", lambda *_: chosen)


def test_every_block_and_every_head_is_found_in_order_of_execution(found):
    places, ablations = found
    kinds = [one.kind for one in ablations]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "residual block": 8,
        "self-attention": 5,
        "head": 20,
        "cross-attention": 5,
        "feed-forward": 5,
        "skip": 4,
    }
    assert len(set(ablations)) == 47 and len(places) == 32
    assert ablations[0].place == "down 0.0" and ablations[-1].place == "up 1.1"
    assert "mid 1" in {one.place for one in ablations}


def test_a_glob_says_what_is_ablated(sd, found):
    places, ablations = ablation.find_ablations(sd, "unet.mid_block*")
    assert ablations == [one for one in found[1] if one.address.startswith("unet.mid_block")]
    assert {one.address for one in ablations} == {tap.address for tap in places}


@pytest.mark.parametrize("pattern", [f"{CROSS}.probs", HIDDEN])
def test_heads_alone_or_a_block_alone_can_be_ablated(pattern, tmp_path, monkeypatch):
    words = ["a cat", *SMALLEST[1:], "--places", pattern, "--out", tmp_path]
    call(experiment.main, *words, monkeypatch=monkeypatch)
    assert spread(only(tmp_path / "test_unet_ablation") / "figure.png") > 5


def test_a_mask_is_zero_where_its_row_says_in_both_halves(found):
    places, ablations = found
    block = Ablation(HIDDEN, "residual block")
    head = Ablation(f"{CROSS}.probs", "head", 2)
    assert block in ablations and head in ablations
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
def test_an_ablation_is_an_edit_that_zeroes_and_leaves_the_other_rows(sd, found):
    places, _ = found
    some = [Ablation(HIDDEN, ""), Ablation(f"{CROSS}.probs", "", 1), Ablation(CROSS, "")]
    context, uncond = np.split(sd.encode_text(["a cat", ""]), 2)
    run, noise = {"uncond": uncond, "steps": 1, "guidance": 4.0}, sd.draw_noise(0, 4)
    untouched, *ended = ablation.ablate(sd, places, [None, *some], context, noise, run)
    edits = [
        Edit(HIDDEN, lambda x: x * 0),
        Edit(f"{CROSS}.probs", lambda x: x * 0, heads=[1]),
        Edit(CROSS, lambda x: x * 0),
    ]
    contexts = np.repeat(context, 4, 0)
    plain, again = (d(sd, contexts, noise, run) for d in (drawing.draw, rounding.redrawn))
    assert rounding.hold(untouched, plain, [plain, again]).passed
    expected = [drawing.draw(instrument(sd, edits=edit), contexts, noise, run) for edit in edits]
    for made, wanted, other in zip(ended, expected, [*expected[1:], expected[0]], strict=True):
        assert rounding.hold(made, wanted, [plain, again]).passed
        assert not rounding.hold(made, other, [plain, again]).passed, "another part"


@pytest.mark.arithmetic
def test_a_latent_consistency_model_is_ablated_too(lcm):
    places, ablations = ablation.find_ablations(lcm)
    context, uncond = np.split(lcm.encode_text(["a cat", ""]), 2)
    run, noise = {"uncond": uncond, "steps": 1, "guidance": 4.0}, lcm.draw_noise(0, 2)
    untouched, *ended = ablation.ablate(lcm, places, [None, *ablations[:2]], context, noise, run)
    plain = drawing.draw(lcm, np.repeat(context, 2, 0), noise, run)
    again = rounding.redrawn(lcm, np.repeat(context, 2, 0), noise, run)
    assert rounding.hold(untouched, plain, [plain, again]).passed
    assert all(np.abs(one - plain).max() > 0 for one in ended)


def judged(things, background, side) -> Marks:
    return Marks(
        *(None if mark is None else np.array(mark, bool) for mark in (things, background, side))
    )


def test_what_is_lost_is_counted_among_those_that_had_it():
    before = judged([1, 1, 1, 0], [1, 1, 1, 1], None)
    after = judged([1, 1, 0, 1], [1, 1, 1, 1], None)
    told = experiment.damage(before, after, np.array([0, 1, 1, 0], bool))
    assert {name: count.short for name, count in told.items()} == {
        "things lost": "1 of 3",
        "background lost": "0 of 4",
        "flipped": "1 of 4",
    }
    assert experiment.damage(None, None, np.ones(4, bool)) == {}


def test_the_finding_names_what_loses_most():
    rows = [
        {"ablated": name, "moved": mean_of(np.array([moved, moved]), "%")}
        | {"things lost": share_of(np.arange(8) < lost)}
        for name, moved, lost in (("skip, up 1", 5.0, 8), ("head 1, mid", 9.0, 1), ("mid", 7.0, 2))
    ]
    told = experiment.find(rows)
    assert told == (
        "Without the skip, up 1, 8 of 8 pictures [68, 100 %] lose their things; "
        "without head 1, mid, 1 of 8."
    )
    for row in rows:
        del row["things lost"]
    assert experiment.find(rows).startswith("Without the head 1, mid, pictures move most: 9 %")


@pytest.mark.arithmetic
def test_it_saves_sheet_table_and_pictures(few, tmp_path, monkeypatch, capfd):
    call(experiment.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_unet_ablation")
    assert spread(folder / "figure.png") > 10
    pictures = load_file(folder / "tensors.safetensors")["pictures"]
    assert pictures.shape == (6, 2, 64, 64, 3)
    report, _ = read_report(folder / "report.json")
    moved = {row["ablated"]: row["moved"] for row in report.table}
    assert [*moved.values()] == sorted(moved.values(), reverse=True) and len(moved) == 6
    far = measure.distance(pictures[1], pictures[0]).mean() / 2.55
    assert moved["residual block, down 1.0"].value == pytest.approx(far)
    assert report.control.passed and capfd.readouterr().err == ""


def test_the_control_fails_where_the_instrument_changes_the_picture(
    few, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(operator, "mul", lambda value, given: value * given * 1.001)
    with pytest.raises(SystemExit, match="control failed"):
        call(experiment.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    assert "everything times one: differs by " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--guidance", "nan"], "guidance of nan is no number"),
        (["--batch", "8"], "--batch is called --pictures now"),
        (
            ["--places", "unet.mid_blok*"],
            "nothing to ablate at unet.mid_blok*; try --places 'unet.mid",
        ),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(experiment.main, words, told, tmp_path / "out", monkeypatch, capfd)
