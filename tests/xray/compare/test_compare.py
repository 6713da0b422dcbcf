"""Planted differences are found where they were planted; runs that are equal are said to be."""

import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest

from experiments.figures import precision, unet_ablation
from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.errors import UsageError
from tests import oracles
from tests.oracles import ANATOMIES
from tests.xray import reel
from xray.compare import backends, by_part, compare, compare_films, hooked, reads_of, reads_on
from xray.film import Film
from xray.film.camera import in_order, write_step
from xray.measure import Estimate, share_of
from xray.methods.ablation import Ablation
from xray.probe import taps

LONG = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.and.further.inside"
OWN = keras.backend.backend()


def run() -> dict[str, np.ndarray]:
    """Four values, the last address first in the alphabet."""
    rng = np.random.default_rng(0)
    names = ("text_encoder", "unet.conv_in", LONG, "a")
    return {name: rng.standard_normal((2, 3)) for name in names}


def planted(**added: float) -> dict[str, np.ndarray]:
    """The same, with something added to the first number of some, as a share of the largest."""
    made = run()
    for name, share in added.items():
        made[name][0, 0] += share * np.abs(made[name]).max()
    return made


@pytest.fixture(scope="module")
def asked(sd) -> dict:
    rng = np.random.default_rng(1)
    latent = rng.standard_normal((2, 16, 16, 4), np.float32)
    context = rng.standard_normal((2, 77, 128), np.float32)
    return {
        "text_encoder": (sd.tokenize(["a cat"]),),
        "unet": (latent, np.array([981, 20], np.int32), context),
        "decoder": (latent[:1],),
    }


# --- arrays


def test_equal_runs_do_not_part():
    found = compare(run(), run())
    assert [row.difference for row in found.rows] == [0] * 4 and found.first is None
    assert found.rows[0].bits == np.inf and found.rows[0].cosine == pytest.approx(1)
    assert str(found).endswith("all 4 values are equal")


def test_the_first_that_parts_is_named_not_the_furthest():
    other = planted(**{"text_encoder": 1e-6, LONG: 2**-9, "a": 0.5})
    found = compare(other, run(), tolerance=1e-4)
    assert found.first.address == LONG and found.furthest.address == "a"
    assert found.first.bits == pytest.approx(9, abs=0.01)
    assert found.rows[-1].difference == pytest.approx(0.5) and found.rows[-1].cosine < 0.99
    assert str(found).splitlines()[-1] == f"first past 0.0001: {LONG}"
    assert compare(other, run(), tolerance=1).first is None
    assert "agree to 5.0e-01" in str(compare(other, run(), tolerance=1))


def test_the_order_is_that_of_execution_or_as_it_is_said():
    assert [row.address for row in compare(run(), run()).rows] == list(run())
    shuffled = dict(sorted(run().items()))
    found = compare(shuffled, run(), order=["text_encoder", "unet.conv_in", "not there"])
    assert [row.address for row in found.rows] == ["text_encoder", "unet.conv_in", "a", LONG]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_on_one_side_is_infinitely_far_on_both_the_same(bad):
    other = planted(a=bad)
    assert compare(other, run()).first.address == "a"
    assert compare(other, run()).furthest.difference == np.inf
    assert compare(run(), other).furthest.difference == np.inf
    assert compare(other, other).first is None
    assert "nan" not in str(compare(other, run()))


def test_what_one_side_lacks_is_told():
    one, other = run(), run()
    del one["a"], other["unet.conv_in"]
    found = compare(one, other)
    assert found.only_one == ("unet.conv_in",) and found.only_other == ("a",)
    assert [row.address for row in found.rows] == ["text_encoder", LONG]
    lines = str(found).splitlines()
    assert "only in one: unet.conv_in" in lines and "only in the other: a" in lines


def test_two_shapes_part():
    other = run() | {"unet.conv_in": np.zeros((2, 4))}
    found = compare(run(), other)
    assert found.first.address == "unet.conv_in" and found.first.difference == np.inf
    assert "(2, 3) and (2, 4)" in str(found)


def test_nothing_in_common_is_an_error():
    with pytest.raises(UsageError, match=r"in common: unet\.a … here, nothing there"):
        compare({"unet.a": np.zeros(1)}, {})


def test_the_table_fits_and_long_addresses_keep_their_end():
    other = planted(**{LONG: 1e-3}) | {"text_encoder": np.zeros((1,) * 30)}
    *rows, last = str(compare(run(), other)).splitlines()
    assert max(map(len, rows)) <= 100 and len({len(row) for row in rows[-3:]}) == 1
    assert any("inside" in row and "…" in row for row in rows)
    assert [row.split()[1] for row in rows if row.startswith("→")] == ["text_encoder"]
    assert last == "first past 0.0001: text_encoder"


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("text_encoder.text_model", "text encoder"),
        ("unet.time_embedding.linear_1", "UNet down"),
        ("unet.down_blocks.0:1.0", "UNet down"),
        ("unet.mid_block", "UNet middle"),
        ("unet.conv_norm_out", "UNet up"),
        ("unet", "UNet up"),
        ("vae.moments", "encoder"),
        ("vae.decoder.conv_in", "decoder"),
        ("vae", "decoder"),
        ("x@3", "the loop"),
    ],
)
def test_every_address_lies_in_a_part(address, part):
    found = by_part(compare({address: np.ones(2)}, {address: np.full(2, 2.0)}))
    assert {name: row.address for name, row in found.items()} == {part: address}


def test_a_part_is_told_by_its_furthest_value():
    other = planted(**{"unet.conv_in": 0.1, LONG: 0.2})
    assert by_part(compare(other, run()))["UNet down"].address == LONG


def test_comparing_arrays_does_without_keras():
    code = "import experiments.figures.precision, sys; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- films


def test_two_films_part_at_the_step_where_one_differs(tmp_path):
    one, other = (Film.open(reel.write(tmp_path / name, 3)) for name in ("one", "other"))
    assert compare_films(one, other).furthest.difference == 0
    changed = in_order(reel.step(1), reel.reads(1) | {reel.SMALL: reel.reads(2)[reel.SMALL]})
    write_step(tmp_path / "other", reel.step(1), changed)
    found = compare_films(one, Film.open(other))
    assert [row.address for row in found.rows if row.difference] == [f"{reel.SMALL}@1"]
    assert not found.only_one and {row.address for row in found.rows} >= {"context", "x@2"}


def test_a_film_that_was_stopped_lacks_its_last_steps(tmp_path):
    one = Film.open(reel.write(tmp_path / "one", 2))
    other = Film.open(reel.write(tmp_path / "other", 1, asked=2))
    found = compare_films(one, other)
    assert found.only_one == tuple(f"{name}@1" for name in one.names) and not found.only_other
    assert found.first is None and found.rows[-1].address == "x_prev@0"


# --- backends


def test_reads_are_all_values_in_order_of_execution(sd, asked):
    parts = {part: asked[part] for part in ("decoder", "text_encoder")}
    reads, known = reads_of(sd, parts), [tap.address for tap in taps(sd)]
    text = [address for address in known if address.startswith("text_encoder")]
    decoder = [address for address in known if address.startswith(("vae.post", "vae.decoder"))]
    assert list(reads) == [*decoder, "vae", *text]
    whole = sd.function("decoder")(*asked["decoder"])  # compiled by itself: it rounds otherwise
    np.testing.assert_allclose(reads["vae"], whole, atol=1e-5)


def test_of_a_large_model_what_the_blocks_of_every_part_give_out_is_read(sd, asked, monkeypatch):
    assert backends.worth_comparing(sd) == "*"
    monkeypatch.setattr(backends, "MOST", 0)
    reads = reads_of(sd, asked, backends.worth_comparing(sd))
    assert {address.split(".")[0] for address in reads} == {"text_encoder", "unet", "vae"}
    assert len(reads) < len(taps(sd)) / 10
    layers = [address for address in reads if address.startswith("text_encoder")]
    assert len(layers) == sd.text_config.num_hidden_layers


def test_another_process_reads_the_same(sd, asked):
    asked = {"text_encoder": asked["text_encoder"]}
    found = reads_on(OWN, asked, pattern="text_encoder*")
    assert list(found) == list(reads_of(sd, asked))
    assert compare(found, reads_of(sd, asked)).furthest.difference == 0


def test_what_the_other_process_refuses_is_one_line():
    with pytest.raises(UsageError, match="no weights at") as refused:
        reads_on(OWN, {}, weights="not/there")
    assert "\n" not in str(refused.value)


def test_a_backend_that_is_not_there_is_told(monkeypatch):
    with pytest.raises(UsageError, match="no backend 'theano'; choose tensorflow"):
        reads_on("theano", {})
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="JAX is not installed; type pip install jax"):
        reads_on("jax", {})


@pytest.mark.parity
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_backends_agree_at_every_value(backend, sd, asked):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    found = compare(reads_on(backend, asked), reads_of(sd, asked))
    assert found.first is None and not found.only_one and not found.only_other
    assert len(found.rows) > 350


# --- diffusers


@pytest.mark.parity
def test_diffusers_says_the_same_at_the_same_addresses(tmp_path):
    anatomy = ANATOMIES["odd"]
    theirs, given = oracles.oracles(anatomy), oracles.inputs(anatomy)["unet"]
    oracles.save(theirs, tmp_path)
    oracles.sharpen(theirs)
    ours = reads_of(StableDiffusion.load(tmp_path), {"unet": given})
    with hooked(theirs.unet) as reads:
        oracles.noise_of(theirs.unet, *given)
    found = compare(ours, reads)
    assert found.first is None, found
    marked = {"hidden", "probs", "heads", "gate", "pad", "enlarge", "after_attn1", "after_attn2"}
    others = {address for address in found.only_one if address.split(".")[-1] not in marked}
    assert {address.split(".skips.")[0].split(":")[0] for address in others} <= {
        f"unet.up_blocks.{i}" for i in range(3)
    }
    theirs.unet.mid_block.resnets[0].conv1.bias += 1
    with hooked(theirs.unet) as reads:
        oracles.noise_of(theirs.unet, *given)
    assert compare(ours, reads).first.address == "unet.mid_block.resnets.0.conv1"
    before = dict(reads)
    oracles.noise_of(theirs.unet, *given)
    assert reads == before, "a hook was left behind"


# --- figures


def test_curves_show_every_comparison_its_parts_and_its_first_parting():
    apart = compare(planted(**{LONG: 1e-2, "a": np.nan}), run())
    drawn = {"float32": np.zeros((4, 4, 3), np.uint8), "one": np.full((4, 4, 3), 2, np.uint8)}
    found = {"one": apart, "same": compare(run(), run())}
    figure = precision.parting_curves(found, drawn, "title")
    axes, *pictures = figure.axes
    told = [picture.get_title() for picture in pictures]
    assert told == ["float32", "one\noff by 2 of 255, 2 at most"]
    bands = [text.get_text() for text in axes.texts]
    assert bands[:3] == ["text\nencoder", "UNet\ndown", "the\nloop"]
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    assert star.get_xydata()[0] == pytest.approx([2, 1e-2])
    ticks = [tick.get_text() for tick in axes.get_yticklabels()]
    assert ticks[0] == "equal" and ticks[-1] == "∞"
    told = [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()]
    assert told == [f"one: first past 0.0001: {LONG}", "same: all 4 values are equal"]
    low, high = axes.get_ylim()
    shown = np.concatenate([line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 4])
    assert np.all((shown[~np.isnan(shown)] > low) & (shown[~np.isnan(shown)] < high))


def test_the_ablation_sheet_shows_bars_heads_and_pictures():
    ablations = [Ablation("unet.mid_block.resnets.0.hidden", "residual block")]
    ablations += [Ablation("unet.mid_block.attentions.0.x.probs", "head", i) for i in range(2)]
    lost = share_of(np.array([True, False]))
    table = [
        {"ablated": str(one), "moved": Estimate(i, i - 1, i + 1, 2, "%"), "things lost": lost}
        for i, one in enumerate(ablations, 3)
    ]
    images = np.zeros((4, 8, 8, 3), np.uint8)
    figure = unet_ablation.ablation_sheet(ablations, table, Estimate(9, 8, 10, 2), images, "t")
    bars, counts, heads, _, *cells = figure.axes
    assert [bar.get_height() for bar in bars.patches] == [3]
    assert [text.get_text() for text in counts.texts] == ["1"]
    assert heads.images[0].get_array().tolist() == [[4, 5]]
    assert [axes.get_xlabel() for axes in cells[:4]] == [
        "untouched",
        "head 1\nmid 0",
        "head 0\nmid 0",
        "residual block\nmid 0",
    ]
