"""Text → the 77 token ids that CLIP reads, and back.

Cleaning, splitting and byte-pair merges follow OpenAI's CLIP (Radford et al., arXiv 2103.00020,
`simple_tokenizer.py`) id for id, in our own lines. The vocabulary beside this file,
`bpe_simple_vocab_16e6.txt.gz`, is OpenAI's, MIT licence, © 2021 OpenAI; SHA-256
924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a.
"""

import gzip
import heapq
import html
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import ftfy
import numpy as np
import regex

from .errors import UsageError

VOCABULARY_FILE = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
MERGES = 48_894  # the file holds more; CLIP was trained with the first 48,894
LENGTH = 77
BOS, EOS = 49_406, 49_407
SPECIALS = {"<|startoftext|>": BOS, "<|endoftext|>": EOS}
END_OF_WORD = "</w>"

# A word is a special token, the tail of a contraction, letters, one digit, or anything else.
WORD = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


class Vocabulary(NamedTuple):
    """What the vocabulary file says."""

    pieces: tuple[str, ...]  # (49408,) token id → piece, spelled in byte letters
    ids: dict[str, int]  # piece → token id
    ranks: dict[tuple[str, str], int]  # pair of pieces → when it is merged: lowest first


class Tokenizer:
    """OpenAI CLIP's tokenizer: `Tokenizer()(["a cat"])` → (1, 77) int32.

    `added`: words beyond the vocabulary and how many tokens each takes, as `[("<toy>", 2)]`; their
    ids go on from 49408 in that order. Such a word is told wherever it stands in the cleaned text,
    but not where a letter (or a digit) at its end goes on with another.
    """

    def __init__(self, added: Sequence[tuple[str, int]] = ()) -> None:
        self.vocabulary = read_vocabulary()
        ends = [*accumulate((count for _, count in added), initial=EOS + 1)]
        self.size = ends[-1]
        self.added = {
            word: range(*both) for (word, _), both in zip(added, pairwise(ends), strict=True)
        }
        self.placeholder = _any_of(self.added)

    def __call__(self, texts: Sequence[str] | str, length: int = LENGTH) -> np.ndarray:
        """Texts → (b, length) int32: BOS, at most length - 2 tokens, EOS to the end.

        What does not fit is left out; `cut` says what that is.
        """
        texts = checked_texts(texts)
        room = _room(length)
        rows = np.full((len(texts), length), EOS, dtype=np.int32)
        for row, text in zip(rows, texts, strict=True):
            ids = self.encode(text)[:room]
            row[0] = BOS
            row[1 : 1 + len(ids)] = ids
        return rows

    def encode(self, text: str) -> list[int]:
        """A text's token ids, as many as it takes, without BOS and EOS."""
        return [token for _, tokens in self._split(text) for token in tokens]

    def decode(self, ids: Iterable[int]) -> str:
        """Token ids (n,) → the cleaned words with one space between them; BOS and EOS dropped."""
        tokens = (token for token in self._checked_ids(ids) if token not in (BOS, EOS))
        spelled = b"".join(self._bytes(token) for token in tokens)
        return spelled.decode("utf-8", errors="replace").strip()

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Token ids (n,) → the text of each.

        A letter outside ASCII can be split between two tokens: each then shows U+FFFD. Of an added
        word the first token shows the word, the others nothing.
        """
        spelled = (self._bytes(token) for token in self._checked_ids(ids))
        return [piece.decode("utf-8", errors="replace").rstrip(" ") for piece in spelled]

    def words(self, text: str, length: int = LENGTH) -> list[tuple[str, list[int]]]:
        """Each word of the cleaned text with its positions in the row of `length` (BOS is 0).

        A word is what the BPE takes as one: "don't 42" is don · 't · 4 · 2. One that only begins
        before the cut keeps the positions it has; one beyond the cut is not listed.
        """
        room = _room(length)
        placed = (
            (match[0], [p for p in places if p <= room]) for match, places in self._walk(text)
        )
        return [(word, positions) for word, positions in placed if positions]

    def cut(self, text: str, length: int = LENGTH) -> str:
        """The end of the cleaned text, from the first word that does not wholly fit; '' if none."""
        room = _room(length)
        for match, places in self._walk(text):
            if places[-1] > room:
                return match.string[match.start() :]
        return ""

    def _split(self, text: str) -> Iterator[tuple[regex.Match, Sequence[int]]]:
        """The words of the cleaned text with their tokens; added words are told first."""
        text, start = clean(text), 0
        for match in self.placeholder.finditer(text):
            yield from _plain_words(text, start, match.start())
            yield match, self.added[match[0]]
            start = match.end()
        yield from _plain_words(text, start, len(text))

    def _walk(self, text: str) -> Iterator[tuple[regex.Match, range]]:
        """Each word of the cleaned text, and the positions of its tokens, however far they run."""
        first = 1
        for match, tokens in self._split(text):
            stop = first + len(tokens)
            yield match, range(first, stop)
            first = stop

    def _bytes(self, token: int) -> bytes:
        """A token's UTF-8 bytes, with a space where it ends a word."""
        if token > EOS:
            begun = (word for word, tokens in self.added.items() if token == tokens[0])
            return b"".join(f"{word} ".encode() for word in begun)
        piece = self.vocabulary.pieces[token]
        stem = piece.removesuffix(END_OF_WORD)
        space = b" " if stem != piece else b""
        return bytes(_letter_bytes()[letter] for letter in stem) + space

    def _checked_ids(self, ids: Iterable[int]) -> list[int]:
        array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise TypeError(f"token ids must be a row of integers, not {array.dtype} {array.shape}")
        outside = array[(array < 0) | (array >= self.size)]
        if outside.size:
            raise ValueError(
                f"token id {outside[0]} is outside the vocabulary, 0 to {self.size - 1}"
            )
        return array.tolist()


def clean(text: str) -> str:
    """Mend the encoding, unescape HTML twice, collapse whitespace, lower the case."""
    if not isinstance(text, str):
        raise UsageError(f"a prompt must be a str, not {type(text).__name__}: {text!r:.60}")
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return regex.sub(r"\s+", " ", text).strip().lower()


@lru_cache(maxsize=1)
def read_vocabulary() -> Vocabulary:
    """Read OpenAI's list of merges and number its pieces.

    The order of the ids: 256 byte letters, the same 256 ending a word, one piece for each merge,
    the two special tokens.
    """
    lines = gzip.decompress(VOCABULARY_FILE.read_bytes()).decode("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 1 + MERGES]]  # line 0 is a version
    letters = list(_byte_letters().values())
    ends = [letter + END_OF_WORD for letter in letters]
    pieces = (*letters, *ends, *map("".join, merges), *SPECIALS)
    return Vocabulary(
        pieces=pieces,
        ids={piece: token for token, piece in enumerate(pieces)},
        ranks={pair: rank for rank, pair in enumerate(merges)},
    )


def merge(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding (Sennrich et al., arXiv 1508.07909): merge the earliest-ranked pair first.

    OpenAI sweeps the whole word for each rank, which is quadratic; here a queue holds the pairs, so
    that a word of n letters takes n log n. The result is the same because every piece in the
    vocabulary comes from one merge only: a merge can never give rise to a pair of an earlier rank.
    """
    # The neighbours are linked lists over positions. The last, empty piece is the fence at both
    # ends (position -1 is the last too): no pair with it has a rank.
    pieces = [*word[:-1], word[-1] + END_OF_WORD, ""]
    before = list(range(-1, len(pieces) - 1))
    after = [*range(1, len(pieces)), 0]
    queue: list[tuple[int, int]] = []

    def propose(left: int) -> None:
        rank = ranks.get((pieces[left], pieces[after[left]]))
        if rank is not None:
            heapq.heappush(queue, (rank, left))

    for position in range(len(word) - 1):
        propose(position)
    while queue:
        rank, left = heapq.heappop(queue)
        right = after[left]
        if ranks.get((pieces[left], pieces[right])) != rank:
            continue  # one of the two has been merged since
        pieces[left] += pieces[right]
        pieces[right] = ""
        after[left] = after[right]
        before[after[right]] = left
        propose(before[left])
        propose(left)
    return [piece for piece in pieces if piece]


def _plain_words(text: str, start: int, stop: int) -> Iterator[tuple[regex.Match, Sequence[int]]]:
    return ((match, _word_ids(match[0])) for match in WORD.finditer(text, start, stop))


@lru_cache(maxsize=2**14)
def _word_ids(word: str) -> tuple[int, ...]:
    if word in SPECIALS:
        return (SPECIALS[word],)
    vocabulary = read_vocabulary()
    spelled = "".join(_byte_letters()[byte] for byte in word.encode("utf-8"))
    return tuple(vocabulary.ids[piece] for piece in merge(spelled, vocabulary.ranks))


def _any_of(words: Iterable[str]) -> regex.Pattern:
    """Matches each of the words, the longest first; without any, nothing."""

    def whole(word: str) -> str:
        first, last = (_kind(letter) for letter in (word[0], word[-1]))
        return f"(?<!{first}){regex.escape(word)}(?!{last})"

    return regex.compile("|".join(map(whole, sorted(words, key=len, reverse=True))) or r"(?!)")


def _kind(letter: str) -> str:
    """What would make a longer word of it: letters of a letter, digits of a digit."""
    kinds = (kind for kind in (r"\p{L}", r"\p{N}") if regex.match(kind, letter))
    return next(kinds, r"(?!)")


@lru_cache(maxsize=1)
def _byte_letters() -> dict[int, str]:
    """Byte → the printable letter that spells it, in the order of the vocabulary (from GPT-2).

    Bytes that print stand for themselves; the others borrow the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    borrowed = {byte: chr(0x100 + i) for i, byte in enumerate(hidden)}
    return {byte: chr(byte) for byte in printable} | borrowed


@lru_cache(maxsize=1)
def _letter_bytes() -> dict[str, int]:
    return {letter: byte for byte, letter in _byte_letters().items()}


def checked_texts(texts: Sequence[str] | str) -> list[str]:
    """One text or several, as a list. Raises UsageError where one is no text."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes | bytearray) or not isinstance(texts, Sequence | np.ndarray):
        raise UsageError(f"prompts must be a str or a list of str, not {type(texts).__name__}")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"prompt {i} must be a str, not {type(text).__name__}: {text!r:.60}")
    return list(texts)


def _room(length: int) -> int:
    """How many tokens fit between BOS and EOS."""
    if length < 2:
        raise ValueError(f"length must be at least 2, for BOS and EOS, not {length}")
    return length - 2
