"""Spans of tokens: where they are, and what replacing them gives, on planted vectors."""

import numpy as np
import pytest

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import EOS
from xray.methods.token_spans import SPANS, replace, split


def ids(words: int) -> np.ndarray:
    return np.array([49406] + [320] * words + [EOS] * (76 - words))


def vectors(words: int, sign: int) -> dict[str, np.ndarray]:
    """Each vector says where it stands, and by its sign whose it is."""
    return split(sign * np.arange(1.0, 78)[:, None], ids(words))


def test_the_spans_are_where_the_tokens_are():
    spans = vectors(3, 1)
    assert [len(span) for span in spans.values()] == [1, 3, 1, 36, 36]
    assert spans["words"].ravel().tolist() == [2, 3, 4] and spans["end"] == 5


@pytest.mark.parametrize("taken", [(), ("start",), ("words", "late padding"), SPANS])
def test_the_spans_that_are_named_are_replaced(taken):
    row = replace(vectors(3, 1), vectors(3, -1), taken).ravel()
    places = dict(zip(SPANS, np.split(np.arange(77), [1, 4, 5, 41]), strict=True))
    expected = np.zeros(77, bool)
    for span in taken:
        expected[places[span]] = True
    assert np.abs(row).tolist() == [*range(1, 78)]
    np.testing.assert_array_equal(row < 0, expected)


def test_prompts_of_two_lengths_keep_their_words_and_77_vectors():
    short, long = vectors(2, 1), vectors(6, -1)
    longer = replace(short, long, ["words"]).ravel()
    assert longer[:9].tolist() == [1, -2, -3, -4, -5, -6, -7, 4, 5] and len(longer) == 77
    shorter = replace(long, short, ["words"]).ravel()
    assert shorter[:5].tolist() == [-1, 2, 3, -8, -9] and len(shorter) == 77
    assert shorter[-1] == shorter[-5] == -77


def test_a_prompt_without_padding_is_refused():
    with pytest.raises(UsageError, match="leaves no padding"):
        vectors(75, 1)
