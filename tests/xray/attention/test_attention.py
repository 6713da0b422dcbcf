"""Heat maps of words: what was planted in the attention is found where it was planted."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from phantom.world import for_evaluation, masks, render, scenes
from stable_diffusion_tf import UsageError
from tests.xray import reel
from xray import attention, measure
from xray.attention import DAAM, DEFAULT, Pooling, maps, phrases, word_maps, words_at
from xray.attention.attention import step_maps
from xray.attention.pooling import RESIZES, TABLES
from xray.film import Film
from xray.probe.interventions import Reads

SIDES = {"down_blocks.0": 16, "down_blocks.1": 8, "mid_block": 4, "up_blocks.1": 8}  # layer → grid
CAT, FIRE, TRUCK = 2, 4, 5  # the tokens of "a cat, fire truck"; 1 is "a", 3 the comma
WORDS = [("a", [1]), ("cat", [CAT]), (",", [3]), ("fire", [FIRE]), ("truck", [TRUCK])]
PLACES = {CAT: (0, 0), FIRE: (0, 1), TRUCK: (0, 1)}  # token → the quarter that it holds
DIMS = ("half", "head", "query", "token")


def address(layer: str) -> str:
    return f"unet.{layer}.attentions.0.transformer_blocks.0.attn2.probs"


def quarter(side: int, place: tuple[int, int]) -> np.ndarray:
    """(side, side) bool, the middle of a quarter, and all of it where it is small."""
    mask = np.zeros((side, side), bool)
    edge, half = side // 8, side // 2
    rows, columns = (slice(i * half + edge, (i + 1) * half - edge) for i in place)
    mask[rows, columns] = True
    return mask


def probs(side: int, places: dict[int, tuple[int, int]], rng: np.random.Generator) -> np.ndarray:
    """(2 heads, cells, 77): most for the start token; each planted token in its quarter, where the
    start token gets less."""
    shares = rng.uniform(0.001, 0.002, (2, side * side, 77))
    shares[..., 0] = 1.0
    for token, place in places.items():
        inside = quarter(side, place).ravel()
        shares[:, inside, token] = 0.6
        shares[:, inside, 0] = 0.2
    return shares / shares.sum(-1, keepdims=True)


def planted(cond: dict = PLACES, uncond: dict | None = None, seed: int = 0) -> Reads:
    """Reads of one picture; in the unconditional half every token holds the last quarter."""
    rng = np.random.default_rng(seed)
    uncond = dict.fromkeys(PLACES, (1, 1)) if uncond is None else uncond
    reads = Reads()
    for layer, side in SIDES.items():
        halves = [probs(side, places, rng) for places in (uncond, cond)]
        reads[address(layer)] = np.stack(halves).astype(np.float32)
        reads.dims[address(layer)] = DIMS
    return reads


def averaged(reads: Reads) -> Reads:
    made = Reads()
    for name, value in reads.items():
        made[name] = value.mean(1)
        made.dims[name] = ("half", "query", "token")
    return made


def peak(heat: np.ndarray) -> tuple[int, int]:
    """The quarter that the largest value lies in."""
    row, column = np.unravel_index(np.argmax(heat), heat.shape)
    return int(row >= heat.shape[0] / 2), int(column >= heat.shape[1] / 2)


CHOICES = [(field, name) for field, table in TABLES.items() for name in table]


@pytest.mark.parametrize("grid", [(16, 16), (64, 64), (10, 12)])
@pytest.mark.parametrize(("field", "name"), CHOICES)
def test_every_pooling_finds_what_was_planted(field, name, grid):
    shots = [planted(seed=i) for i in range(3)]
    pooling = replace(DAAM, **{field: name})
    found = word_maps(shots, phrases(WORDS, ["fire truck"]), pooling, grid)
    places = {"cat": PLACES[CAT], "fire truck": PLACES[FIRE]}
    if name in ("uncond", "whole"):  # the first picture of the whole batch is unconditional
        places = dict.fromkeys(places, (1, 1))
    for word, place in places.items():
        assert found[word].shape == grid and peak(found[word]) == place, word


@pytest.mark.parametrize("layer", SIDES)
def test_each_layer_shows_it_on_its_own_grid(layer):
    found = maps(planted(), [[CAT]], replace(DAAM, layers=address(layer)))[0]
    side = SIDES[layer]
    assert found.shape == (side, side)
    np.testing.assert_array_equal(found > found.mean(), quarter(side, PLACES[CAT]))


def test_our_pooling_masks_what_was_planted():
    found = word_maps([planted(seed=i) for i in range(3)], WORDS, grid=(64, 64))
    for word, place in [("cat", PLACES[CAT]), ("truck", PLACES[TRUCK])]:
        assert measure.iou_at(found[word], quarter(64, place), attention.INSIDE) > 0.6
        assert measure.iou_at(found[word], quarter(64, (1, 0)), attention.INSIDE) == 0


def test_heads_are_chosen_and_averaged():
    reads, rng = planted(), np.random.default_rng(1)
    for layer, side in SIDES.items():
        reads[address(layer)][1, 1] = probs(side, {CAT: (1, 0)}, rng)[1]
    for head, place in [(0, PLACES[CAT]), (1, (1, 0))]:
        assert peak(maps(reads, [[CAT]], replace(DAAM, heads=[head]))[0]) == place
    both = maps(reads, pooling=replace(DAAM, heads=[0, 1]))
    np.testing.assert_allclose(both, maps(averaged(reads), pooling=DAAM), atol=1e-7)


def test_steps_weigh_as_told():
    shots = [planted({CAT: (0, 0)}), planted({CAT: (1, 0)})]
    pooling = Pooling(resize="nearest")  # which takes nothing below zero, and so is linear
    first, last = (maps(shot, [[CAT]], pooling) for shot in shots)
    told = {"equal": (1, 1), "late": (1, 2), "early": (2, 1), (0, 1): (0, 1), (3, 1): (3, 1)}
    for steps, (a, b) in told.items():
        found = maps(shots, [[CAT]], replace(pooling, steps=steps))
        np.testing.assert_allclose(found, (a * first + b * last) / (a + b), atol=1e-7)


def test_layers_weigh_as_told():
    chosen = [address("down_blocks.0"), address("down_blocks.1")]
    wide, narrow = (maps(planted(), [[CAT]], Pooling(layers=a), (16, 16)) for a in chosen)
    equal = maps(planted(), [[CAT]], Pooling(layers=chosen))
    cells = maps(planted(), [[CAT]], Pooling(layers=chosen, weight="positions"))
    np.testing.assert_allclose(equal, (wide + narrow) / 2, atol=1e-7)
    np.testing.assert_allclose(cells, (4 * wide + narrow) / 5, atol=1e-7)


def test_a_word_of_several_tokens_joins_their_maps():
    reads, pooling = planted(), Pooling(layers=address("down_blocks.0"), resize="nearest")
    one, two = maps(reads, [[CAT], [FIRE]], pooling)
    told = {"mean": (one + two) / 2, "max": np.maximum(one, two), "last": two}
    for join, expected in told.items():
        found = maps(reads, [[CAT, FIRE]], replace(pooling, join=join))[0]
        np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("grid", [(16, 16), (40, 24)])
def test_maps_that_are_divided_by_their_sum_sum_to_one(grid):
    found = maps(planted(), pooling=Pooling(norm="sum"), grid=grid)
    assert found.shape == (77, *grid)
    np.testing.assert_allclose(found.sum((-2, -1)), 1)


def test_all_tokens_share_each_cell():
    found = maps(planted(), pooling=Pooling(resize="bilinear"), grid=(16, 16))
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)


def test_words_share_each_cell_and_special_maps_are_kept_apart():
    found = word_maps(planted(), WORDS, Pooling(against="words"))
    assert [*found] == ["a", "cat", ",", "fire", "truck", "<start>", "<end>", "<padding>"]
    np.testing.assert_allclose(sum(found[word] for word, _ in WORDS), 1)
    for name, tokens in zip(attention.SPECIAL, ([0], [6], [*range(7, 77)]), strict=True):
        np.testing.assert_array_equal(found[name], maps(planted(), [tokens], DAAM)[0])


def test_what_words_are_held_against():
    own = [places for _, places in WORDS]
    words, start = maps(planted(), own, DAAM), maps(planted(), [[0]], DAAM)[0]
    low, high = start.min(), start.max()
    told = {
        "nothing": words,
        "mean": words - words.mean(0),
        "start": words - start,
        "odds": words / (words + start),
        "words, start": words / words.sum(0) * (high - start) / (high - low),
    }
    for against, expected in told.items():
        found = word_maps(planted(), WORDS, Pooling(against=against))
        np.testing.assert_allclose([found[word] for word, _ in WORDS], expected, atol=1e-9)


# --- resizing ----------------------------------------------------------------------------------

FROM_FOUR = {  # the first four of eight new cells, as torch.nn.functional.interpolate has them
    "nearest": [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]],
    "bilinear": [[1, 0, 0, 0], [0.75, 0.25, 0, 0], [0.25, 0.75, 0, 0], [0, 0.75, 0.25, 0]],
    "bicubic": [
        [1.10546875, -0.10546875, 0, 0],
        [0.7734375, 0.26171875, -0.03515625, 0],
        [0.2265625, 0.87890625, -0.10546875, 0],
        [-0.10546875, 0.87890625, 0.26171875, -0.03515625],
    ],
    "area": [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]],
}


@pytest.mark.parametrize("name", RESIZES)
def test_resizing_by_a_table(name):
    np.testing.assert_allclose(RESIZES[name](8, 4)[:4], FROM_FOUR[name], atol=1e-12)
    np.testing.assert_allclose(RESIZES[name](8, 8), np.eye(8), atol=1e-12)
    for into in (3, 4, 9, 64):
        np.testing.assert_allclose(RESIZES[name](into, 5).sum(1), 1)


def test_a_latent_that_is_no_square():
    reads, name = Reads(), address("mid_block")
    reads[name] = np.zeros((2, 2, 8, 77), np.float32)
    reads[name][:, :, 3, CAT] = 1  # of 2 rows and 4 columns the last of the first row
    reads.dims[name] = DIMS
    found = maps(reads, [[CAT]], Pooling(layers=name), shape=(8, 16))[0]
    np.testing.assert_array_equal(found, [[0, 0, 0, 1], [0, 0, 0, 0]])


# --- words -------------------------------------------------------------------------------------


def test_words_that_come_again_are_told_apart():
    words = [("a", [1]), ("cat", [2]), ("a", [3]), ("cat", [4]), ("a", [5])]
    assert [*word_maps(planted(), words)][:5] == ["a", "cat", "a#2", "cat#2", "a#3"]


def test_a_prompt_that_fills_the_row_has_no_padding():
    words = [(f"word{i}", [i]) for i in range(1, 76)]
    found = word_maps(planted(), words, DAAM)
    assert [*found][75:] == ["<start>", "<end>"]
    np.testing.assert_array_equal(found["<end>"], maps(planted(), [[76]], DAAM)[0])


def test_a_prompt_without_words_has_its_special_maps():
    assert [*word_maps(planted(), [])] == ["<start>", "<end>", "<padding>"]


def test_phrases_take_words_as_one():
    words = [*WORDS, ("fire", [6]), ("fire", [7]), ("truck", [8, 9])]
    joined = [("a", [1]), ("cat", [2]), (",", [3]), ("fire truck", [4, 5]), ("fire", [6])]
    assert phrases(words, ["ice cream", "fire truck"]) == [*joined, ("fire truck", [7, 8, 9])]
    assert phrases(words, []) == words


def test_words_at_a_cell_are_ranked():
    found = word_maps(planted(), WORDS, Pooling(against="words"), (16, 16))
    ranked = words_at(found, 4, 4)
    assert ranked[0] == ("cat", found["cat"][4, 4]) and len(ranked) == len(WORDS)
    assert [value for _, value in ranked] == sorted((v for _, v in ranked), reverse=True)
    assert {word for word, _ in words_at(found, 4, 12)[:2]} == {"fire", "truck"}


# --- a film ------------------------------------------------------------------------------------


def test_a_film_and_its_reads_give_the_same_maps(tmp_path):
    film = Film.open(reel.write(tmp_path / "film", 3))
    shots = [Reads() for _ in range(3)]
    for index, reads in enumerate(shots):
        reads.update({k: v for k, v in reel.reads(index).items() if "attn2" in k})
        reads.dims.update(dict.fromkeys(reads, DIMS))
    words, pooling = [("a", [1]), ("cat", [2])], replace(DEFAULT, layers=reel.PROBS)
    of_film, of_reads = (word_maps(x, words, pooling) for x in (film, shots))
    assert [*of_film] == ["a", "cat", "<start>", "<end>", "<padding>"]
    for name, heat in of_film.items():
        np.testing.assert_array_equal(heat, of_reads[name])
        assert heat.shape == (reel.SIDE, reel.SIDE) and heat.any()


def test_each_step_has_maps_of_its_own(tmp_path):
    film = Film.open(reel.write(tmp_path / "run", 3))
    words, late = [("a", [1]), ("cat", [2])], Pooling(steps=[0, 0, 1])
    each = step_maps(film, words, late, (4, 4))
    assert len(each) == 3 and [*each[0]] == ["a", "cat", *attention.SPECIAL]
    for word, heat in word_maps(film, words, late, (4, 4)).items():
        np.testing.assert_allclose(each[2][word], heat)
        assert not np.allclose(each[0][word], heat)


def test_what_is_handed_in_stays_as_it_is():
    reads = planted()
    before = {name: value.copy() for name, value in reads.items()}
    word_maps(reads, WORDS)
    for name, value in before.items():
        np.testing.assert_array_equal(reads[name], value)


# --- bad input ---------------------------------------------------------------------------------


def with_axes(*dims: str) -> Reads:
    reads = averaged(planted())
    reads.dims = dict.fromkeys(reads, dims)
    return reads


def oblong() -> Reads:
    reads, name = Reads(), address("mid_block")
    reads[name], reads.dims[name] = np.zeros((2, 8, 77), np.float32), ("half", "query", "token")
    return reads


def one_row() -> Reads:
    reads = planted()
    for name in reads:
        reads[name] = reads[name][:1]
    return reads


BAD = [
    (lambda: Pooling(join="median"), "no join 'median'; choose 'mean', 'max', 'last'"),
    (lambda: Pooling(half="left"), "no half 'left'; choose 'cond', 'uncond', 'whole'"),
    (lambda: Pooling(steps="middle"), "no steps 'middle'"),
    (lambda: Pooling(against="all"), "no against 'all'"),
    (lambda: maps({}), 'use Probe("unet.*.attn2.probs", Mean("head"))'),
    (lambda: maps([]), "nothing was read of"),
    (lambda: word_maps([], WORDS), "nothing was read of"),
    (lambda: maps(planted(), pooling=Pooling(layers="unet.x")), "nothing was read of unet.x"),
    (lambda: maps(planted(), pooling=Pooling(heads=[2])), "no head 2: there are 0 … 1"),
    (lambda: maps(averaged(planted()), pooling=Pooling(heads=[0])), "to choose heads"),
    (lambda: maps(with_axes("head", "query", "token")), "was read as head, query, token"),
    (
        lambda: maps([planted()] * 3, pooling=Pooling(steps=(1, 1))),
        "weighs 2 steps, and here are 3",
    ),
    (lambda: maps(planted(), pooling=Pooling(steps=(0,))), "weighs 1 steps"),
    (lambda: maps(planted(), picture=1), "no picture 1: there are 0 … 0"),
    (lambda: maps(one_row()), "pool with half='whole'"),
    (lambda: maps(oblong(), pooling=Pooling(layers="*")), "a layer of 8 positions is no square"),
    (lambda: maps(planted(), shape=(3, 5)), "does not go with a latent of 3 × 5"),
    (lambda: maps(planted(), [[77]]), "no token 77: there are 0 … 76"),
    (lambda: words_at(word_maps(planted(), WORDS), 16, 0), "no position 16, 0: rows are 0 … 15"),
    (lambda: attention.looks_at(1, 0.5), "from 0 to below 1, not 1, 0.5"),
    (lambda: attention.look(None, np.zeros((2, 8, 8, 3)), ["a"]), "2 pictures and 1 captions"),
]


@pytest.mark.parametrize(("act", "told"), BAD, ids=[told for _, told in BAD])
def test_bad_input_is_told_in_one_line(act, told):
    with pytest.raises(UsageError) as error:
        act()
    assert told in str(error.value) and "\n" not in str(error.value)


# --- the model looks ---------------------------------------------------------------------------


def test_self_attention_is_reduced_to_what_a_cell_looks_at():
    shares = np.zeros((2, 3, 8, 8), np.float32)  # 2 rows of 4 cells
    shares[1, :, 5, 2] = [0.1, 0.2, 0.6]  # the second row's second cell looks at the first row
    found = np.asarray(attention.looks_at(0.5, 0.26, (2, 4))(shares))
    assert found.shape == (2, 2, 4)
    np.testing.assert_allclose(found[1], [[0, 0, 0.3, 0], [0, 0, 0, 0]], atol=1e-7)
    assert not found[0].any() and not np.asarray(attention.looks_at(0, 0, (2, 4))(shares)).any()


def test_self_attention_is_reduced_inside_of_the_model(sd):
    from xray.probe import Probe
    from xray.probe.instrumented import instrument

    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.probs"
    call = sd.draw_noise(0), 500, sd.encode_text("a cat")
    whole, reduced = (
        instrument(sd, Probe(name, reduce)) for reduce in (None, attention.looks_at(0.5, 0.25))
    )
    for seen in (whole, reduced):
        seen.predict_noise(*call)
    full, reads = whole.reads[name], reduced.reads
    expected = full[:, :, 8 * 16 + 4].mean(1).reshape(1, 16, 16)
    np.testing.assert_allclose(reads[name], expected, atol=1e-6)


def test_looking_at_pictures_finds_their_things(sd):
    """Better than the map of a thing in another picture."""
    told = scenes(3, 8, for_evaluation, 1)
    images = np.stack([render(scene) for scene in told])
    before = images.copy()
    shots = attention.look(sd, images, [f"a {scene.things[0].name}" for scene in told])
    assert len(shots) == len(attention.TIMES) and np.array_equal(images, before)
    assert not np.array_equal(*(next(iter(shot.values())) for shot in shots[:2]))
    names, known = [scene.things[0].name for scene in told], [masks(scene) for scene in told]
    known = np.stack([known[i][name] for i, name in enumerate(names)])
    words = [phrases(sd.tokenizer.words(f"a {name}"), [name]) for name in names]
    maps = [
        word_maps(shots, words[i], DEFAULT, known.shape[1:], picture=i)[name]
        for i, name in enumerate(names)
    ]
    score, chance = (
        measure.iou_at(np.array(heats), known, attention.INSIDE).mean()
        for heats in (maps, maps[::-1])
    )
    assert score > 0.4 and score > 2 * chance


def test_importing_starts_no_keras():
    code = "import xray.attention, sys; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
