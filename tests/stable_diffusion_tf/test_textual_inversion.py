"""Words that were learned: how files tell them, how prompts hold them, what the encoder makes."""

import json
from itertools import chain
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from stable_diffusion_tf import StableDiffusion, UsageError
from stable_diffusion_tf.checkpoint.textual_inversion import (
    TABLE,
    check_rows,
    new_word,
    read_embedding,
)
from stable_diffusion_tf.config import CLIPTextConfig
from stable_diffusion_tf.tokenizer import BOS, EOS, Tokenizer
from tests import oracles
from tests.formats import Built, Call, Global, New, write_stream, write_zip
from tests.golden.make_relatives import GOLDEN
from tests.oracles import LCM

WIDTH = LCM.text_encoder.hidden_size
patient = settings(deadline=None, max_examples=50)  # a busy machine is no failure


def vectors(*shape: int) -> np.ndarray:
    return oracles.random_array(*shape, seed=9)


def saved(folder: Path, tensors: dict[str, np.ndarray], name: str = "toy.safetensors") -> Path:
    save_file(tensors, folder / name)
    return folder / name


# --- in the tokenizer: ids follow the vocabulary's


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(
        [("<toy>", 1), ("<style>", 3), ("nerfy", 2), ("<toy-car>", 1), ("v2", 1), ("v2.1", 1)]
    )


TOY, STYLE, NERFY, CAR, V2, V21 = (
    [49408],
    [*range(49409, 49412)],
    [49412, 49413],
    [49414],
    [49415],
    [49416],
)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("<toy>", [TOY]),
        ("a <toy> cat", ["a", TOY, "cat"]),
        ("A <TOY> cat", ["a", TOY, "cat"]),
        ("<toy><style>", [TOY, STYLE]),
        ("cat,<toy>.", ["cat ,", TOY, "."]),
        ("(<toy>:1.2)", ["(", TOY, ":", "1", ".", "2", ")"]),
        ("<toy>s", [TOY, "s"]),
        ("<toy-car> <toy>", [CAR, TOY]),
        ("nerfy, nerfy!", [NERFY, ",", NERFY, "!"]),
        ("unnerfy nerfyness nerfy2", ["unnerfy", "nerfyness", NERFY, "2"]),
        ("<toy-car>3", [CAR, "3"]),
        ("v2.1 v2.2", [V21, V2, ". 2"]),
        ("v2 v23 1v2 dev2", [V2, "v 2 3", "1", V2, "dev 2"]),
        ("<toy", ["<", "toy"]),
        ("&lt;toy&gt;", [TOY]),
    ],
)
def test_added_words_are_told_wherever_they_stand(tokenizer, text, expected):
    plain = Tokenizer()
    ids = [plain.encode(part) if isinstance(part, str) else part for part in expected]
    assert tokenizer.encode(text) == [*chain(*ids)]


def test_text_without_them_is_as_it_was(tokenizer):
    for text in ("a cat on a mat", "<|startoftext|> &amp; <b>", "", "x" * 500):
        assert tokenizer.encode(text) == Tokenizer().encode(text)


def test_a_row_has_their_ids_and_they_come_back(tokenizer):
    row = tokenizer("a <style> cat")[0]
    assert row[:7].tolist() == [BOS, 320, *STYLE, 2368, EOS]
    assert tokenizer.decode(row) == "a <style> cat"
    assert tokenizer.pieces(row[1:6]) == ["a", "<style>", "", "", "cat"]


@patient
@given(st.lists(st.sampled_from(["<toy>", "<style>", "nerfy", "<toy-car>", "a", "cat", ",", "7"])))
def test_there_and_back(words):
    tokenizer = Tokenizer([("<toy>", 1), ("<style>", 3), ("nerfy", 2), ("<toy-car>", 1)])
    text = " ".join(words)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_and_cut_count_their_tokens(tokenizer):
    assert tokenizer.words("a <style> cat") == [("a", [1]), ("<style>", [2, 3, 4]), ("cat", [5])]
    assert tokenizer.words("a <style> cat", 5) == [("a", [1]), ("<style>", [2, 3])]
    assert tokenizer.cut("a <style> cat", 5) == "<style> cat"
    assert tokenizer.cut("a <style> cat", 7) == ""


def test_ids_beyond_them_are_an_error(tokenizer):
    with pytest.raises(ValueError, match="token id 49417 is outside the vocabulary, 0 to 49416"):
        tokenizer.decode([49417])


# --- files


@pytest.mark.parametrize("shape", [(WIDTH,), (1, WIDTH), (4, WIDTH)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_diffusers_form_names_the_word(tmp_path, shape, dtype):
    rows = vectors(*shape).astype(dtype)
    word, found = read_embedding(saved(tmp_path, {"<cat-toy>": rows}))
    assert word == "<cat-toy>" and found.dtype == np.float32
    np.testing.assert_array_equal(found, np.atleast_2d(rows).astype(np.float32))


def test_the_web_uis_form_is_named_by_its_file(tmp_path):
    rows = vectors(2, WIDTH)
    word, found = read_embedding(saved(tmp_path, {"emb_params": rows}, "nerfy.safetensors"))
    assert word == "nerfy"
    np.testing.assert_array_equal(found, rows)


def parameters(**tensors: np.ndarray) -> Built:
    """A torch.nn.ParameterDict."""
    wrapped = {
        name: Call(Global("torch._utils._rebuild_parameter"), (tensor, True, ()))
        for name, tensor in tensors.items()
    }
    hooks = Call(Global("__builtin__.set"), ([],))
    state = {"training": True, "_parameters": wrapped, "_non_persistent_buffers_set": hooks}
    return Built(New(Global("torch.nn.modules.container.ParameterDict")), state)


WEB_UI = {"string_to_token": {"*": 265}, "name": "of-training", "step": 1500, "sd_checkpoint": None}


@pytest.mark.parametrize("write", [write_zip, write_stream])
@pytest.mark.parametrize(
    "name, tree, expected",
    [
        ("learned_embeds.bin", {"<toy>": vectors(WIDTH)}, "<toy>"),
        ("nerfy.pt", WEB_UI | {"string_to_param": {"*": vectors(3, WIDTH)}}, "nerfy"),
        (  # the paper's own code
            "embeddings_gs-6099.pt",
            {
                "string_to_token": {"*": np.array(265)},
                "string_to_param": parameters(**{"*": vectors(2, WIDTH)}),
            },
            "embeddings_gs-6099",
        ),
    ],
)
def test_torchs_files_are_read_without_torch(tmp_path, write, name, tree, expected):
    word, rows = read_embedding(write(tmp_path / name, tree))
    assert word == expected
    np.testing.assert_array_equal(rows, vectors(*rows.shape))


def test_a_folder_of_diffusers_is_read(tmp_path):
    saved(tmp_path, {"<toy>": vectors(WIDTH)}, "learned_embeds.safetensors")
    assert read_embedding(tmp_path)[0] == "<toy>"


@pytest.mark.parametrize(
    "tensors, told",
    [
        ({"clip_l": vectors(1, 768), "clip_g": vectors(1, 1280)}, "an embedding for SDXL"),
        ({"a": vectors(2), "b": vectors(2)}, "no textual inversion: it holds 2 tensors"),
        ({"<toy>": vectors(2, 3, 4)}, r"no textual inversion: its tensor is \(2, 3, 4\)"),
        ({"<toy>": vectors(0, 4)}, r"no textual inversion: its tensor is \(0, 4\)"),
        ({"<toy>": np.float32(1)[None][0:1].reshape(())}, "no textual inversion"),
        ({"<toy>": np.array([1, np.nan], np.float32)}, "holds NaN"),
        ({"<toy>": np.array([[1, np.inf]], np.float32)}, "holds NaN or infinite"),
        ({"<toy>": np.array([[1, 1e300]])}, "holds NaN or infinite"),
    ],
)
def test_what_is_no_embedding_is_told(tmp_path, tensors, told):
    path = saved(tmp_path, tensors)
    with pytest.raises(UsageError, match=rf"toy\.safetensors .*{told}") as error:
        read_embedding(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "word, told",
    [
        ("", "not one word"),
        ("my toy", "not one word"),
        ("to\u202ey", "not one word"),
        ("cat", "cat is there already"),
        ("CAT", "cat is there already"),
        ("<Style>", "<style> is there already"),
    ],
)
def test_a_word_that_cannot_be_added_is_told(tokenizer, word, told):
    with pytest.raises(UsageError, match=f"toy.bin: .*{told}.*word='<toy>'"):
        new_word(word, tokenizer, "toy.bin")


def test_a_new_word_is_as_prompts_are_cleaned(tokenizer):
    assert new_word(" <Cat-Toy> ", tokenizer, "toy.bin") == "<cat-toy>"


# --- in the text encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A text encoder with the whole vocabulary, and weights that are drawn."""
    with np.load(GOLDEN) as found:
        names = json.loads(str(found["lcm/names"]))
    folder = tmp_path_factory.mktemp("model")
    oracles.write(folder, LCM, names)
    return folder


@pytest.fixture
def sd(folder) -> StableDiffusion:
    return StableDiffusion.load(folder)


def rows_of(text: str) -> np.ndarray:
    """The vectors that the encoder has for the tokens of a text."""
    return oracles.draw(TABLE, (EOS + 1, WIDTH))[Tokenizer().encode(text)]


def test_a_word_with_the_vectors_of_others_means_the_same(sd, tmp_path):
    prompts = ["a red cat on a mat", "a dog"]
    before = sd.encode_text(prompts)
    assert sd.add_word(saved(tmp_path, {"<Kitty>": rows_of("red cat")})) == "<kitty>"
    assert sd.add_word(saved(tmp_path, {"<rug>": rows_of("mat")[0]}), "<carpet>") == "<carpet>"
    after = sd.encode_text([*prompts, "a <kitty> on a <carpet>"])
    np.testing.assert_allclose(after, before[[0, 1, 0]], atol=1e-5)
    assert sd.tokenize("<kitty> <carpet>")[0, 1:4].tolist() == [49408, 49409, 49410]


def test_a_word_of_its_own_is_heard_and_known(sd, tmp_path):
    assert sd.unknown_words("a cat") == {}
    sd.add_word(saved(tmp_path, {"<toy>": vectors(2, WIDTH)}))
    assert sd.unknown_words("a <toy>") == {}
    toy, cat = sd.encode_text(["a <toy>", "a cat"])
    assert np.abs(toy - cat).max() > 0.1
    sd.release("text_encoder")
    np.testing.assert_allclose(sd.encode_text("a <toy>")[0], toy, atol=1e-5)


@pytest.mark.parametrize(
    "width, told",
    [(1024, "1024 wide, as of Stable Diffusion 2;"), (768, "768 wide, as of another model;")],
)
def test_vectors_of_another_model_are_told(sd, tmp_path, width, told):
    with pytest.raises(UsageError, match=rf"toy\.safetensors holds vectors {told} use .* 16 wide"):
        sd.add_word(saved(tmp_path, {"<toy>": vectors(width)}))
    assert sd.learned == {} and sd.tokenizer.added == {}


def test_a_word_is_added_once(sd, tmp_path):
    path = saved(tmp_path, {"<toy>": vectors(WIDTH)})
    sd.add_word(path)
    with pytest.raises(UsageError, match="the word <toy> is there already"):
        sd.add_word(path)
    assert sd.add_word(path, word="<toy2>") == "<toy2>"


def test_a_vocabulary_of_another_size_takes_no_words():
    config = CLIPTextConfig(vocab_size=49410, hidden_size=WIDTH)
    with pytest.raises(UsageError, match=r"toy\.bin cannot be added: .* 49410 tokens, not 49408"):
        check_rows(vectors(1, WIDTH), config, "toy.bin")
