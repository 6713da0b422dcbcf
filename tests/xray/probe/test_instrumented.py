"""An instrument is a second model: whatever is nested, called before or called by turns, it gives
the numbers of a model that is new and has the same rules at once."""

import gc
import operator
import weakref
from dataclasses import replace

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.errors import UsageError
from tests import tiny
from xray.film import Film
from xray.probe import Edit, Feed, Mean, PerStep, Probe, instrumented, looking, take
from xray.probe.instrumented import instrument

pytestmark = pytest.mark.arithmetic

STEPS, CROSS, AT = 2, "unet.*.attn2.probs", "unet.up_blocks.0"
EDITS = [
    Edit("unet.conv_in", lambda x: x * 1.5),
    Edit(CROSS, lambda x: x * 0.5, steps=[1]),
    Edit("unet.down_blocks.0", lambda x: x + 0.25, half="cond"),
    Edit("text_encoder", lambda x: x * 0.9),
    Edit("eps_cond", lambda x: x * 1.1, steps=[0]),
    Edit("x0", lambda x: x * 0.8),
]
PROBES = [
    Probe(CROSS, Mean("head")),
    Probe(CROSS),
    Probe("unet.conv_in"),
    Probe("unet.conv_in:in"),
    Probe("text_encoder"),
    Probe(["vae.*", "unet.up_blocks.?"]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("tiny"), replace(tiny.UNET, sample_size=8))


@pytest.fixture
def sd(folder):
    return StableDiffusion.load(folder)


def draw(sd: StableDiffusion) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Where a run ends, and what was read last."""
    context = sd.encode_text(["a cat", ""])
    latent = np.random.default_rng(0).standard_normal((1, 8, 8, 4), dtype=np.float32)
    *_, last = sd.denoise(context[:1], context[1:], STEPS, 3.0, latent=latent, progress=list)
    sd.decode_latent(last.x_prev)
    return last.x_prev, dict(getattr(sd, "reads", {}))


def same(one: tuple, other: tuple) -> bool:
    return (
        np.array_equal(one[0], other[0])
        and one[1].keys() == other[1].keys()
        and all(np.array_equal(value, other[1][name]) for name, value in one[1].items())
    )


@pytest.mark.parametrize("seed", range(2))
def test_any_nesting_order_and_turn_gives_what_a_new_model_gives(folder, seed):
    """The rules of one instrument, dealt out over nested ones and used by turns with another."""
    rng = np.random.default_rng(seed)
    deal = lambda rules: [rules[i] for i in rng.choice(len(rules), 3, replace=False)]  # noqa: E731
    rules = [(deal(PROBES), deal(EDITS)) for _ in range(2)]
    shared, turns = StableDiffusion.load(folder), []
    for probes, edits in rules:
        if rng.random() < 0.5:
            draw(shared)
        cut = int(rng.integers(0, 4))
        inner = instrument(shared, probes[:cut], edits[: 3 - cut])
        if rng.random() < 0.5:
            draw(inner)
        turns.append(instrument(inner, probes[cut:], edits[3 - cut :]))
    plain = draw(shared)
    with pytest.raises(ZeroDivisionError):
        draw(instrument(shared, edits=Edit("unet.conv_in", lambda x: x / (1 // 0))))
    by_turns = [draw(seen) for seen in turns], [draw(seen) for seen in turns[::-1]][::-1]
    assert same(plain, draw(shared)) and same(plain, draw(StableDiffusion.load(folder)))
    for i, given in enumerate(rules):
        alone = draw(instrument(StableDiffusion.load(folder), *given))
        assert same(by_turns[0][i], alone) and same(by_turns[1][i], alone)
        assert not np.array_equal(alone[0], plain[0])


def test_a_film_obeys_and_tells_of_every_rule_in_force(small, tmp_path):
    """Whether the UNet was called before or not: one film once showed what another told of."""
    run = {"steps": STEPS, "seed": 1}
    inner = instrument(small, AT, Edit("unet.conv_in", abs))
    outer = Edit(AT, take, source={AT: np.ones((2, 8, 8, 8))})
    first = Film.shoot(inner, "a cat", edits=outer, out=tmp_path / "first", **run)
    assert [len(first.facts[name]) for name in ("probes", "edits")] == [1, 2]
    assert (first[1][AT] == 1).all()
    plain = small.generate("a cat", **run)[0]
    again = Film.shoot(inner, "a cat", edits=outer, out=tmp_path / "again", **run)
    flat = instrument(small, inner.probes, [*inner.edits, outer])
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.image, flat.generate("a cat", **run)[0])
    assert first.replay(flat).identical, "its rules stand for those of the film"
    with pytest.raises(UsageError, match=r"the function 'builtins:abs'.*film.replay"):
        first.replay(small)
    assert not np.array_equal(first.image, plain)


def test_the_model_underneath_and_parts_without_rules_are_shared(sd):
    seen = instrument(sd, "unet.conv_in")
    assert seen.networks is sd.networks and seen.function("decoder") is sd.function("decoder")
    assert seen.function("unet") is not sd.function("unet")
    assert seen.function("unet") is seen.function("unet"), "kept, it compiles once"
    network = sd.network("unet")
    seen.release("unet")
    assert "unet" not in {part for part, *_ in sd.functions} and sd.network("unet") is not network


SCALE = 2.0


def scaled(x):
    return x * SCALE


@pytest.fixture
def compiled(monkeypatch):
    """Counts what is compiled with rules."""
    made = []

    def counting(*given):
        made.append(given)
        return looking(*given)

    monkeypatch.setattr(instrumented, "looking", counting)
    return made


def test_rules_that_are_alike_but_for_steps_and_source_are_compiled_once(folder, sd, compiled):
    at = "unet.conv_in"
    sources = [{at: np.full((2, 8, 8, 8), value, np.float32)} for value in (0, 1)]
    sets = [
        lambda i: Probe(CROSS, Mean(["head"])),
        lambda i: Edit("unet.conv_in", lambda x: x * 0.5, steps=[i]),
        lambda i: Edit("unet.conv_in", source=sources[i], half="cond"),
    ]
    for number, make in enumerate(sets, 1):
        for i in range(2):
            rule = make(i)
            rules = {"probes" if isinstance(rule, Probe) else "edits": [rule]}
            one, read = draw(instrument(sd, **rules))
            alone = draw(instrument(StableDiffusion.load(folder), **rules))
            assert same((one, read), alone)
        assert len([given for given in compiled if given[0] is sd.network("unet")]) == number


def test_a_function_that_asks_for_something_outside_is_compiled_anew(sd, monkeypatch):
    ends = []
    for scale in (2.0, 3.0):
        monkeypatch.setitem(globals(), "SCALE", scale)
        factor = scale
        for function in (scaled, lambda x: x * factor, lambda x, by=factor: x * by):  # noqa: B023
            ends.append(draw(instrument(sd, edits=Edit("unet.conv_in", function)))[0])
    for before, after in zip(ends[:3], ends[3:], strict=True):
        assert not np.array_equal(before, after)
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])


def test_few_are_kept_and_no_source_with_them(sd, monkeypatch):
    monkeypatch.setattr(instrumented, "KEPT", 2)
    source = np.ones((2, 8, 8, 8), np.float32)
    gone = weakref.ref(source)
    draw(instrument(sd, edits=Edit("unet.conv_in", source={"unet.conv_in": source})))
    del source
    gc.collect()
    assert gone() is None
    for axis in ("row", "column", "channel"):
        draw(instrument(sd, Probe("unet.conv_in", Mean(axis))))
    kept = [key[1] for key in sd.functions if len(key) > 1]
    assert [reduce for _, reduce in kept] == [("mean", ("column",)), ("mean", ("channel",))]


def test_two_probes_of_one_value_each_have_theirs(sd):
    inner = instrument(sd, Probe(CROSS))
    _, read = draw(instrument(inner, [Probe(CROSS, Mean("head")), Probe(CROSS, Mean("head"))]))
    whole = {name: value for name, value in read.items() if "|" not in name}
    means = {name: value for name, value in read.items() if "|" in name}
    assert len(whole) == len(means) == 3
    for name, value in means.items():
        address, made = name.split("|")
        assert made == "mean head"
        np.testing.assert_allclose(value, whole[address].mean(1), rtol=1e-5, atol=1e-7)


# --- values of the loop ------------------------------------------------------------------------


def steps_of(sd: StableDiffusion, **options) -> list:
    context = np.random.default_rng(1).standard_normal((2, 6, 12), dtype=np.float32)
    latent = np.random.default_rng(0).standard_normal((1, 8, 8, 4), dtype=np.float32)
    run = {"steps": STEPS, "guidance": 3.0, "latent": latent, "progress": list} | options
    return list(sd.denoise(context[:1], context[1:], **run))


def test_values_of_the_loop_are_edited_and_the_rest_follows(sd):
    plain = steps_of(sd)
    muted = steps_of(instrument(sd, edits=Edit("eps_cond", lambda x: x * 0, steps=[1])))
    np.testing.assert_array_equal(muted[0].x_prev, plain[0].x_prev)
    assert not muted[1].eps_cond.any()
    np.testing.assert_allclose(muted[1].eps, -2 * plain[1].eps_uncond, rtol=1e-5)
    stopped = steps_of(instrument(sd, edits=Edit("x0", lambda x: x * 0)))[0]
    np.testing.assert_array_equal(stopped.eps, plain[0].eps)
    assert not stopped.x0.any() and not np.array_equal(stopped.x_prev, plain[0].x_prev)
    noise = Edit("x", source=[{"x": 2 * step.x} for step in plain])
    np.testing.assert_array_equal(steps_of(instrument(sd, edits=noise))[1].x, 2 * plain[1].x)


def test_an_edit_that_changes_nothing_of_the_loop_changes_no_bit(sd):
    names = ["x", "eps_uncond", "eps_cond", "eps", "x0"]
    for eta in (0.0, 1.0):
        plain = steps_of(sd, eta=eta)[-1].x_prev
        edited = steps_of(instrument(sd, edits=Edit(names, lambda x: x)), eta=eta)[-1].x_prev
        np.testing.assert_array_equal(edited, plain)


# --- sources -----------------------------------------------------------------------------------


def test_a_feed_is_an_input_of_one_compiled_function(sd):
    feed = Feed()
    fed = instrument(sd, edits=Edit("unet.conv_in", lambda x, given: x + given, source=feed))
    with pytest.raises(UsageError, match=r"the feed of the edit of 'unet.conv_in' is empty"):
        steps_of(fed)
    plain, shape = steps_of(sd), (2, 8, 8, 8)
    feed({"unet.conv_in": np.zeros(shape, np.float32)})
    np.testing.assert_array_equal(steps_of(fed)[-1].x_prev, plain[-1].x_prev)
    function = fed.function("unet")
    feed(PerStep(lambda step: {"unet.conv_in": np.full(shape, step, np.float32)}, STEPS))
    moved = steps_of(fed)
    np.testing.assert_array_equal(moved[0].x_prev, plain[0].x_prev)
    assert not np.array_equal(moved[1].x_prev, plain[1].x_prev)
    assert fed.function("unet") is function


@pytest.mark.bfloat16
def test_a_source_of_floats_serves_a_model_of_any_precision(folder):
    sd, feed = StableDiffusion.load(folder, "bfloat16"), Feed()
    fed = instrument(sd, edits=Edit("unet.conv_in", operator.add, source=feed))
    feed({"unet.conv_in": np.zeros((2, 8, 8, 8), np.float32)})
    np.testing.assert_array_equal(steps_of(fed)[-1].x_prev, steps_of(sd)[-1].x_prev)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (Edit("unet.conv_in", lambda x: None), "returned None; its function returns the new value"),
        (Edit("unet.conv_in", lambda x: np.asarray(x) * 0), "write its function with keras.ops"),
        (Edit("unet.conv_in", lambda x: x[:1]), "must keep the shape"),
        (Edit("x", lambda x: x[..., :1]), "the edit of x made"),
        (Edit("eps", abs, heads=[0]), "eps has no axis of heads"),
        (Edit("unet.conv_in", abs, steps=[2]), "no step 2 in a run of 2"),
        (Edit("unet.conv_in", source=[{}]), "no such step in its film of 1"),
    ],
)
def test_what_an_edit_cannot_do_is_a_sentence(sd, edit, complaint):
    with pytest.raises(UsageError, match=complaint):
        steps_of(instrument(sd, edits=edit))


def test_a_misspelt_value_of_the_loop_is_found_near(sd):
    with pytest.raises(UsageError, match=r"no tap matches 'eps_con'; the nearest are eps_cond"):
        instrument(sd, edits=Edit("eps_con", abs))


def test_a_call_outside_of_a_run_says_which_step_it_is(sd):
    seen = instrument(sd, edits=Edit("unet.conv_in", lambda x: x * 0, steps=[1]))
    call = np.ones((2, 8, 8, 4), np.float32), 500, np.ones((2, 6, 12), np.float32)
    with pytest.raises(UsageError, match="say which this is, step=0"):
        seen.predict_noise(*call)
    np.testing.assert_array_equal(seen.predict_noise(*call, step=0), sd.predict_noise(*call))
    assert not np.array_equal(seen.predict_noise(*call, step=1), sd.predict_noise(*call))
