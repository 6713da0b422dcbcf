"""The script on learning a word: what moves and what does not, its numbers on planted cases, its
control, the smallest run."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from experiments import text_symbol_image2image as symbol
from phantom import new_words
from phantom.portraits import fitting, likeness, portrait
from phantom.world import Thing, enlarged, put
from stable_diffusion_tf import StableDiffusion, attention, scheduler
from stable_diffusion_tf.attention import Attention
from stable_diffusion_tf.checkpoint.textual_inversion import read_embedding
from stable_diffusion_tf.clip import build_clip
from stable_diffusion_tf.keras_private import all_layers
from stable_diffusion_tf.precisions import precision
from stable_diffusion_tf.unet import build_unet
from tests.experiments.test_scripts import PHOTO, call, check_refusal, only, spread
from tests.tiny import TEXT, UNET, same, scramble, values
from xray.methods import textual_inversion
from xray.report import read_report

TOKEN, ALPHAS = 7, scheduler.alphas_cumprod()
IDS = np.array([[1, TOKEN, 3, 4, 5, 6], [2, 3, TOKEN, 9, 9, 9]] * 4, np.int32)


@pytest.fixture(scope="module")
def model() -> textual_inversion.Learner:
    text = scramble(build_clip(TEXT), seed=1)
    unet = scramble(build_unet(replace(UNET, cross_attention_dim=TEXT.hidden_size)), seed=2)
    return textual_inversion.Learner(text, unet, np.zeros(TEXT.hidden_size, np.float32))


def lesson(seed: int = 0) -> textual_inversion.Lesson:
    rng = np.random.default_rng(seed)
    return textual_inversion.Lesson(
        rng.standard_normal((8, 4, 4, 4), dtype=np.float32), IDS, TOKEN, 4
    )


def planted(model: textual_inversion.Learner, word: np.ndarray) -> textual_inversion.Examples:
    """Examples whose noise is what the model says with this word."""
    asked = textual_inversion.questions(lesson(), ALPHAS, seed=0)
    model.word.assign(word)
    return asked._replace(noise=model.predict_on_batch(asked.inputs))


def test_a_planted_word_is_approached_and_nothing_else_moves(model):
    word = np.random.default_rng(3).standard_normal(TEXT.hidden_size, dtype=np.float32)
    asked = planted(model, word)
    assert textual_inversion.losses(model, word, asked).max() < 1e-9
    model.word.assign(0.5 * word)
    before = values(model.text_encoder), values(model.unet)
    model.compile(keras.optimizers.Adam(0.0), loss="mse", jit_compile=False)
    still = textual_inversion.learn(model, lambda step: asked, 2, np.array([0, 2]))
    np.testing.assert_array_equal(still[0], still[1])
    model.optimizer.learning_rate = 0.03
    begun, learned = textual_inversion.learn(model, lambda step: asked, 30, np.array([0, 30]))
    np.testing.assert_array_equal(begun, np.float32(0.5) * word)
    off = [textual_inversion.losses(model, w, asked).mean() for w in (begun, learned)]
    assert off[1] < 0.25 * off[0]
    assert same(values(model.text_encoder), before[0]) and same(values(model.unet), before[1])


def test_a_study_compares_with_what_is_there(model):
    networks = {"text_encoder": model.text_encoder, "unet": model.unet}
    words = SimpleNamespace(encode=lambda word: [int(word)], decode=lambda ids: str(ids[0]))
    sd = SimpleNamespace(
        network=networks.get, alphas=ALPHAS, tokenizer=words, known_tokens=np.arange(20) < 12
    )
    found = textual_inversion.study(sd, lesson(), steps=8, rate=0.1, seed=0)
    assert found.steps.tolist() == [0, 2, 4, 6, 8] and found.words.shape == (5, 12)
    (table,) = model.text_encoder.text_model.embeddings.token_embedding.get_weights()
    np.testing.assert_array_equal(found.words[0], table[TOKEN])
    near = textual_inversion.nearest_tokens(sd, table[TOKEN], 4)
    alike = table[:12] @ table[TOKEN] / np.linalg.norm(table[:12], axis=1)
    np.testing.assert_array_equal(near, np.argsort(-alike)[:4])
    assert len({*map(tuple, found.words.tolist())}) == 5
    assert found.curve.shape == (5, 4) and found.of_random.shape == found.of_rival.shape == (4,)
    assert int(found.rival) < 12 and int(found.rival) != TOKEN


def test_of_a_large_model_one_example_after_another_is_learned_from(model, monkeypatch):
    """The same words come of it; each block is computed once more on the way back, attention in
    chunks of half the size, and nothing of TensorFlow's holds the model when the lesson is over."""
    from tensorflow.python.framework.ops import gradient_registry

    attended, attend = [], Attention.attend_by_chunks

    def counted(self, *x):
        attended.append(attention.CHUNK_BYTES)
        return attend(self, *x)

    monkeypatch.setattr(Attention, "attend_by_chunks", counted)
    tables, found, traced = [], [], []
    for weights in (1e9, 0):
        monkeypatch.setattr(textual_inversion, "LARGE", weights)
        attended.clear()
        parts = len([*model.parts(8)])
        adam = keras.optimizers.Adam(0.1, gradient_accumulation_steps=8 if parts > 1 else None)
        model.compile(adam, loss="mse", jit_compile=False)
        model.word.assign(np.ones(TEXT.hidden_size, np.float32))
        draw = partial(textual_inversion.taught, lesson(), ALPHAS, 0)
        found.append(textual_inversion.learn(model, draw, 3, np.array([0, 1, 3])))
        traced.append([*attended])
        tables.append({*gradient_registry._registry})
    plain, parted = found
    whole, again = traced
    assert parts == 8 and len(again) > len(whole) > 0
    assert {*again} == {attention.CHUNK_BYTES // 2} and {*whole} == {attention.CHUNK_BYTES}
    np.testing.assert_allclose(parted, plain, rtol=1e-3, atol=1e-4)
    assert not np.allclose(plain[0], plain[1])
    assert tables[0] == tables[1]
    assert not any({"call", "attend"} & vars(layer).keys() for layer in all_layers(model.unet))


def test_a_word_is_learned_in_bfloat16(monkeypatch):
    monkeypatch.setattr(textual_inversion, "LARGE", 0)
    with precision("bfloat16"):
        text = scramble(build_clip(TEXT), seed=1)
        unet = scramble(build_unet(replace(UNET, cross_attention_dim=TEXT.hidden_size)), seed=2)
    model = textual_inversion.Learner(text, unet, np.zeros(TEXT.hidden_size, np.float32))
    word = np.random.default_rng(3).standard_normal(TEXT.hidden_size, dtype=np.float32)
    asked = planted(model, 4 * word)  # so far that rounding is nothing beside it
    model.word.assign(0 * word)
    adam = keras.optimizers.Adam(0.2, gradient_accumulation_steps=len(asked.t))
    model.compile(adam, loss="mse", jit_compile=False)
    begun, learned = textual_inversion.learn(model, lambda step: asked, 8, np.array([0, 8]))
    off = [textual_inversion.losses(model, word, asked).mean() for word in (begun, learned)]
    assert off[1] < 0.5 * off[0]


def test_a_tokens_vector_as_the_word_errs_as_the_token_does(model):
    asked = textual_inversion.questions(lesson(), ALPHAS, seed=0)
    table = values(model.text_encoder)["text_model.embeddings.token_embedding.weight"]
    tokens, sample = np.array([11, 2, 15]), np.array([0, 5, 9, 15, 3])
    found = textual_inversion.mean_errors(model, tokens, asked, sample)
    here = values(model)["word"]
    direct = [
        textual_inversion.losses(model, table[token], asked)[sample].mean() for token in tokens
    ]
    assert found == pytest.approx(direct, rel=1e-4)
    np.testing.assert_array_equal(values(model)["word"], here)
    best = textual_inversion.best_token(model, tokens, int(tokens[np.argmin(found)]), asked)
    assert best in tokens and best != tokens[np.argmin(found)]


def test_questions_are_of_pictures_that_do_not_teach():
    asked = textual_inversion.questions(lesson(), ALPHAS, seed=0)
    assert sorted(set(asked.t.tolist())) == [400, 550, 700, 850] and len(asked.t) == 16
    clean = scheduler.predict_x0(asked.x, asked.noise, asked.t, ALPHAS)
    np.testing.assert_allclose(clean[::4], lesson().latents[4:], atol=1e-4)
    step = textual_inversion.taught(lesson(), ALPHAS, 0, 3)
    assert step.t.min() >= 300 and step.t.max() < 1000 and np.ptp(step.t) > 500
    np.testing.assert_array_equal(step.here, step.ids == TOKEN)


def test_a_sprite_is_like_itself_and_less_like_others():
    image = portrait("blue", Thing("lemon", "", 8, 20))
    assert likeness(image, "lemon") > 0.99
    assert likeness(image, "pear") < 0.9 and likeness(image, "penguin") < 0.7
    assert likeness(np.full((64, 64, 3), 90, np.uint8), "lemon") == 0
    assert "yellow" not in fitting("lemon") and "blue" in fitting("lemon")
    assert enlarged(image[None], 128).shape == (1, 128, 128, 3)


def test_differences_are_told_only_when_clear():
    off = np.array([1.0, 2.0, 3.0, 2.0])
    errors = {"fruit": 9 + off, "yellow": 9 + off[::-1], "<s*>": 9 + 0 * off, symbol.RANDOM: off}
    told = symbol.figures.tell_errors(60, errors)
    assert told.startswith("In 60 steps <s*> comes to an error of 9 ")
    assert "below “fruit” (11" in told and "below “yellow”" in told
    errors["fruit"] = 9 + off - 2
    assert "not clearly other than “fruit” (9" in symbol.figures.tell_errors(60, errors)


def learned(shown: float, last: np.ndarray) -> textual_inversion.Learned:
    """A word that errs less by `shown` than it did, and a random one that errs as it did."""
    begun = np.random.default_rng(0).random(12)
    curve, words = np.stack([begun, begun - shown]), np.stack([0 * last, last])
    return textual_inversion.Learned(np.array([0, 75]), words, curve, "apple", begun, begun + 1e-9)


def test_what_was_learned_is_saved_and_drawn(tmp_path, monkeypatch, capfd):
    """Learning itself is tested above, on networks that compile quickly."""
    small = {"RUN": {"steps": 2, "guidance": 2.0}, "FIRST": 1}
    for name, value in small.items():
        monkeypatch.setattr(new_words, name, value)
    vector = np.random.default_rng(1).standard_normal(128, dtype=np.float32)
    monkeypatch.setattr(textual_inversion, "study", lambda *given: learned(0.1, vector))
    call(symbol.main, "--number", 2, "--pictures", 2, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text_symbol_image2image")
    assert spread(folder / "figure.png") > 10
    word, rows = read_embedding(folder / "learned_embeds.safetensors")
    saved = load_file(folder / "tensors.safetensors")
    assert word == "<s*>" and rows.shape == (1, 128)
    np.testing.assert_array_equal(rows[0], saved["words"][-1])
    assert saved["losses"].shape == (2, 12) and saved["drawn"].shape == (3, 2, 64, 64, 3)
    assert not np.array_equal(saved["drawn"][0], saved["drawn"][2])
    assert not np.array_equal(saved["changed"][0], saved["changed"][2])
    report, _ = read_report(folder / "report.json")
    assert report.numbers["fruit: more error"].value == pytest.approx(0.1)
    assert [row["word"] for row in report.table] == ["fruit", "apple", "<s*>", symbol.RANDOM]
    said, complained = capfd.readouterr()
    assert complained == "" and f"--words {folder / 'learned_embeds.safetensors'}" in said


def test_the_control_fails_where_a_random_direction_does_as_well(tmp_path, monkeypatch):
    blank = new_words.Made(*np.zeros((3, 3, 2, 64, 64, 3), np.uint8))
    nothing = learned(0, np.ones(128, np.float32))
    nothing = nothing._replace(of_random=nothing.curve[1] + np.resize([0.1, -0.1], 12))
    monkeypatch.setattr(textual_inversion, "study", lambda *given: nothing)
    monkeypatch.setattr(new_words, "use", lambda *given: blank)
    monkeypatch.setattr(new_words, "compare", lambda *given: {})
    monkeypatch.setattr(symbol.figures, "inversion_sheet", lambda *given: Figure())
    with pytest.raises(SystemExit, match="control failed"):
        call(symbol.main, "--out", tmp_path, monkeypatch=monkeypatch)


def test_of_a_folder_only_the_noise_is_new():
    images, captions = new_words.collect(str(PHOTO), "orange", 3, 2, 64, 0)
    assert images.shape == (3 + 2, 64, 64, 3) and set(captions) == {"an orange"}
    np.testing.assert_array_equal(images[0], images[-1])
    made = new_words.Made(*np.zeros((3, 1, 64, 64, 3)))
    assert new_words.compare(str(PHOTO), ["a"], made) == {}


def test_the_thing_is_not_among_the_others(monkeypatch):
    asked = []

    def told(rng, name, sizes):
        asked.append(name)
        return put(rng, name, sizes)

    monkeypatch.setattr(new_words, "put", told)
    with pytest.raises(AttributeError):  # there is no model to draw with
        new_words.use(SimpleNamespace(size=64), ["a"], "owl", 40, 0)
    assert len(asked) == 40 and "owl" not in asked


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["no-such-sprite"], "is no sprite; say with --start"),
        (["--rate", "0.1"], "--rate is called --learning-rate now"),
        (["--number", "0"], "--number 0 is not from 1 to 64"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--start", "zebra"], "the model never saw 'zebra'; name another word with --start"),
        (["--start", "red apple"], "is 2 tokens, not one"),
        (["no-such-folder", "--start", "apple"], "no-such-folder"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(symbol.main, words, told, tmp_path / "out", monkeypatch, capfd)


def test_a_consistency_model_learns_no_words():
    sd = StableDiffusion.load("phantom")
    sd.__dict__["unet_config"] = replace(sd.unet_config, time_cond_proj_dim=8)
    with pytest.raises(textual_inversion.UsageError, match="learns no words"):
        textual_inversion.check_word(sd, "apple")
