"""Our ids and those of OpenAI's tokenizer, side by side."""

import runpy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_diffusion_tf.tokenizer import Tokenizer, clean

pytestmark = pytest.mark.parity

MAKER = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "make_tokenizer.py"))

# Any text, and texts put together from what tokenizers stumble over.
fragments = st.sampled_from([phrase for kind in MAKER["PHRASES"].values() for phrase in kind])
snippets = st.tuples(fragments, st.integers(0, 400), st.integers(0, 20)).map(
    lambda cut: cut[0][cut[1] % (len(cut[0]) + 1) :][: cut[2]]
)
texts = st.text(max_size=80) | st.lists(snippets | st.text(max_size=4), max_size=12).map("".join)
entities = st.from_regex(
    r"(&(#[0-9]{1,6}|#x[0-9a-f]{1,5}|[a-z]{2,6}|amp);? ?){1,5}", fullmatch=True
)


@pytest.fixture(scope="module")
def openai():
    return MAKER["openai_tokenizer"]()


@pytest.fixture(scope="module")
def theirs(openai):
    return openai.SimpleTokenizer()


def test_the_corpus_has_the_same_ids(theirs):
    tokenizer = Tokenizer()
    parted = [text for text in MAKER["corpus"]() if tokenizer.encode(text) != theirs.encode(text)]
    assert not parted, f"{len(parted)} differ, first {parted[0]!r:.200}"


@settings(deadline=None, max_examples=1000)
@given(text=texts | entities)
def test_any_text_has_the_same_ids(theirs, text):
    assert Tokenizer().encode(text) == theirs.encode(text)


@settings(deadline=None, max_examples=1000)
@given(text=texts | entities)
def test_cleaning_is_the_same(openai, text):
    assert clean(text) == openai.whitespace_clean(openai.basic_clean(text)).lower()


@settings(deadline=None, max_examples=300)
@given(ids=st.lists(st.integers(0, 49405), max_size=20))
def test_decoding_is_the_same_but_for_the_space_at_the_ends(theirs, ids):
    assert Tokenizer().decode(ids) == theirs.decode(ids).strip()
