"""The tokenizer against ids that OpenAI's own tokenizer wrote, and against its own promises."""

import gzip
import hashlib
import json
import random
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import (
    BOS,
    EOS,
    SPECIALS,
    VOCABULARY_FILE,
    WORD,
    Tokenizer,
    clean,
    merge,
    read_vocabulary,
)

GOLDEN = Path(__file__).parents[1] / "golden"

patient = settings(deadline=None, max_examples=50)  # a busy machine is no failure

# Letters that cleaning leaves as they are, but for their case. No & (it would begin an entity) and
# no alphabet that could be taken for mojibake.
calm = st.text(
    "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789 \t\n.,;:!?'\"()-_/猫座る한국어", max_size=60
)
anything = st.text(max_size=60)
long_texts = st.lists(calm, max_size=40).map(" ".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture(scope="module")
def golden() -> list[dict]:
    return json.loads(gzip.decompress((GOLDEN / "tokenizer.json.gz").read_bytes()))["rows"]


# --- the vocabulary


def test_the_vocabulary_is_openais():
    digest = hashlib.sha256(VOCABULARY_FILE.read_bytes()).hexdigest()
    assert digest == "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"


def test_every_piece_has_its_own_id():
    vocabulary = read_vocabulary()
    assert len(vocabulary.pieces) == len(vocabulary.ids) == EOS + 1
    assert vocabulary.pieces[BOS:] == ("<|startoftext|>", "<|endoftext|>")
    assert vocabulary.pieces[320] == "a</w>" and vocabulary.pieces[2368] == "cat</w>"


def test_every_merge_joins_pieces_of_earlier_merges():
    """What the queue in `merge` relies on."""
    made = {piece: -1 for piece in read_vocabulary().pieces[:512]}
    for pair, rank in read_vocabulary().ranks.items():
        assert all(made[piece] < rank for piece in pair)
        assert made.setdefault("".join(pair), rank) == rank
    assert len(made) == 512 + 48_894


def sweep(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding by the book: of all pairs, merge the first-ranked, everywhere; again."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while known := set(pairwise(pieces)) & ranks.keys():
        best = min(known, key=ranks.__getitem__)
        joined, i = [], 0
        while i < len(pieces):
            width = 2 if tuple(pieces[i : i + 2]) == best else 1
            joined.append("".join(pieces[i : i + width]))
            i += width
        pieces = joined
    return pieces


@patient
@given(
    st.text("aehinorst", min_size=1, max_size=40)
    | st.text("ha", min_size=1, max_size=40)
    | st.text("!?.Ġ", min_size=1, max_size=40)
)
def test_merge_does_what_the_book_says(word):
    ranks = read_vocabulary().ranks
    assert merge(word, ranks) == sweep(word, ranks)


# --- ids


def test_the_corpus_is_the_one_that_was_tokenized(golden):
    corpus = runpy.run_path(str(GOLDEN / "make_tokenizer.py"))["corpus"]()
    assert len(corpus) >= 2000
    assert [row["text"] for row in golden] == corpus


def test_ids_are_those_of_openai(tokenizer, golden):
    parted = [row["text"] for row in golden if tokenizer.encode(row["text"]) != row["ids"]]
    assert not parted, f"{len(parted)} of {len(golden)} differ, first {parted[0]!r:.200}"


def test_a_long_word_takes_no_long_time(tokenizer):
    """A tokenizer that sweeps needs minutes here. Not a measurement: it must only end."""
    rng = random.Random(1)
    word = "".join(chr(ord("a") + int(rng.random() * 26)) for _ in range(100_000))
    ids = tokenizer.encode(word)
    assert tokenizer.decode(ids) == word


# --- rows


@patient
@given(st.lists(anything | long_texts, max_size=4), st.integers(2, 90))
def test_rows_are_bos_tokens_eos(texts, length):
    tokenizer = Tokenizer()
    rows = tokenizer(texts, length)
    assert rows.shape == (len(texts), length) and rows.dtype == np.int32
    for text, row in zip(texts, rows, strict=True):
        kept = tokenizer.encode(text)[: length - 2]
        assert row.tolist() == [BOS, *kept, *[EOS] * (length - 1 - len(kept))]


def test_a_known_row(tokenizer):
    row = tokenizer("a cat")
    assert row.tolist() == [[BOS, 320, 2368, *[EOS] * 74]]


@pytest.mark.parametrize(
    "texts", ["a cat", ["a cat"], ("a cat",), np.array(["a cat"]), [np.str_("a cat")]]
)
def test_prompts_come_as_a_str_or_any_sequence_of_str(tokenizer, texts):
    np.testing.assert_array_equal(tokenizer(texts), tokenizer(["a cat"]))


def test_no_prompts_are_no_rows(tokenizer):
    assert tokenizer([]).shape == (0, 77)


def test_75_tokens_fit_and_76_are_cut(tokenizer):
    fits, over = " ".join(["cat"] * 75), " ".join(["cat"] * 75 + ["dog"])
    np.testing.assert_array_equal(tokenizer(fits), tokenizer(over))
    assert tokenizer(over)[0, 75:].tolist() == [2368, EOS]
    assert tokenizer.cut(fits) == ""
    assert tokenizer.cut(over) == "dog"


# --- what is cut, and where words are


def test_a_word_that_half_fits_is_cut_whole(tokenizer):
    text = "cat " * 74 + "Supercalifragilistic,  Dog"
    assert tokenizer.cut(text) == "supercalifragilistic, dog"
    assert tokenizer.words(text)[-1] == ("supercalifragilistic", [75])


def test_words_have_the_positions_of_their_pieces(tokenizer):
    assert tokenizer.words("A photo of “Don’t” 42 supercalifragilistic CATS,") == [
        ("a", [1]),
        ("photo", [2]),
        ("of", [3]),
        ('"', [4]),
        ("don", [5]),
        ("'t", [6]),
        ('"', [7]),
        ("4", [8]),
        ("2", [9]),
        ("supercalifragilistic", [10, 11, 12, 13, 14]),
        ("cats", [15]),
        (",", [16]),
    ]
    assert tokenizer.words("") == []


@patient
@given(anything | long_texts, st.integers(2, 90))
@example("a <|endoftext|> cat", 77)
def test_words_cover_the_row_and_cut_is_the_rest(text, length):
    tokenizer = Tokenizer()
    words, cut = tokenizer.words(text, length), tokenizer.cut(text, length)
    row = tokenizer(text, length)[0]
    ids = tokenizer.encode(text)

    covered = [position for _, positions in words for position in positions]
    assert covered == list(range(1, 1 + min(len(ids), length - 2)))
    assert (cut == "") == (len(ids) <= length - 2)
    assert clean(text).endswith(cut)

    every = WORD.findall(clean(text))
    beyond = WORD.findall(cut)
    assert [word for word, _ in words] == every[: len(words)]
    assert beyond == every[len(every) - len(beyond) :]
    whole = words[: len(every) - len(beyond)]
    assert len(words) - len(whole) in (0, 1)  # at most one word begins before the cut
    for word, positions in whole:
        assert tokenizer.decode(row[positions]) == ("" if word in SPECIALS else word)


# --- back to text


@patient
@given(calm)
def test_decoding_gives_words_that_have_the_same_ids(text):
    tokenizer = Tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.encode(tokenizer.decode(ids)) == ids
    assert tokenizer.decode(ids).split() == WORD.findall(clean(text))


@pytest.mark.parametrize("text", ["a cat", "猫 座", "café 🐱 naïve", "</w> w </w>", ""])
def test_decode_reads_well_and_drops_the_special_tokens(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)[0]) == " ".join(WORD.findall(text))


def test_pieces_are_the_text_of_each_token(tokenizer):
    ids = tokenizer.encode("supercalifragilistic cat's 🐱")
    assert tokenizer.pieces(ids) == ["super", "cali", "frag", "ili", "stic", "cat", "'s", "🐱"]
    assert tokenizer.pieces([BOS, 320, EOS]) == ["<|startoftext|>", "a", "<|endoftext|>"]
    assert tokenizer.pieces([]) == [] and tokenizer.decode([]) == ""


# --- cleaning


@patient
@given(calm)
def test_cleaning_twice_is_cleaning_once(text):
    assert clean(clean(text)) == clean(text) == " ".join(text.lower().split())


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  A  Cat\n", "a cat"),
        ("“a cat’s hat”", '"a cat\'s hat"'),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("&lt;b&gt;", "<b>"),
        ("<b> &amp;lt; &amp;amp;lt;", "<b> < &lt;"),
        ("ａ　ｃａｔ", "a cat"),
        ("ﬁne", "fine"),
        ("schÃ¶n", "schön"),
        ("u\u0308ber", "über"),
        ("\ud800", "�"),
        ("\ud83d\ude00", "😀"),
        ("\x1fa\x00\x1b[31mb\x1f", "ab"),
        (" a\t\u2028\u3000b\xa0", "a b"),
    ],
)
def test_cleaning(text, cleaned):
    assert clean(text) == cleaned


# --- wrong types


@pytest.mark.parametrize("text", [None, b"a cat", 7, ["a cat"]])
@pytest.mark.parametrize("method", ["encode", "words", "cut"])
def test_a_prompt_that_is_no_text_is_a_type_error(tokenizer, method, text):
    with pytest.raises(UsageError, match=f"a prompt must be a str, not {type(text).__name__}"):
        getattr(tokenizer, method)(text)


@pytest.mark.parametrize("texts", [None, b"a cat", bytearray(b"a"), 7, {"a cat"}, {"a": 1}])
def test_prompts_that_are_no_list_are_a_type_error(tokenizer, texts):
    with pytest.raises(UsageError, match="prompts must be a str or a list of str"):
        tokenizer(texts)


@pytest.mark.parametrize("wrong", [None, b"a cat", 7, ["a cat"]])
def test_a_list_with_something_else_in_it_says_which(tokenizer, wrong):
    with pytest.raises(UsageError, match=f"prompt 1 must be a str, not {type(wrong).__name__}"):
        tokenizer(["a cat", wrong])


@pytest.mark.parametrize("ids", [["a"], [0.5], np.zeros((1, 77), np.int32)])
@pytest.mark.parametrize("method", ["decode", "pieces"])
def test_ids_are_a_row_of_integers(tokenizer, method, ids):
    with pytest.raises(TypeError, match="must be a row of integers"):
        getattr(tokenizer, method)(ids)


@pytest.mark.parametrize("token", [-1, EOS + 1])
def test_ids_outside_the_vocabulary_are_an_error(tokenizer, token):
    with pytest.raises(ValueError, match=f"token id {token} is outside the vocabulary"):
        tokenizer.decode([320, token])


@pytest.mark.parametrize("length", [1, 0, -3])
def test_a_row_has_room_for_bos_and_eos(tokenizer, length):
    with pytest.raises(ValueError, match="length must be at least 2"):
        tokenizer("a cat", length)


def test_what_is_handed_in_is_not_written_to(tokenizer):
    texts, ids = ["A  Cat", "b"], np.array([BOS, 320, EOS])
    ids.flags.writeable = False
    tokenizer(texts)
    tokenizer.decode(ids)
    tokenizer.pieces(ids)
    assert texts == ["A  Cat", "b"]
