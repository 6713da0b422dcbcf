"""Variants of a prompt as rows of token ids, (n) each: the start token, its tokens, end tokens."""

from collections.abc import Sequence

import numpy as np

from stable_diffusion_tf.tokenizer import BOS, EOS

NAMES = {"<|startoftext|>": "start", "<|endoftext|>": "end"}


def grow(ids: np.ndarray, count: int) -> np.ndarray:
    """The prompt's first 0, 1 … count tokens, and after them the end: (count + 1, n)."""
    kept = np.arange(len(ids)) <= np.arange(count + 1)[:, None]
    return np.where(kept, ids, EOS).astype(ids.dtype)


def change(ids: np.ndarray, count: int, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The prompt with another known token in place of its first, … its count-th: (count, n)."""
    rows = np.repeat(ids[None], count, axis=0)
    others = [rng.choice(known[known != token]) for token in ids[1 : count + 1]]
    np.fill_diagonal(rows[:, 1:], others)
    return rows


def strange(number: int, length: int, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Prompts of random known tokens, as many as fit: (number, length)."""
    rows = rng.choice(known, (number, length)).astype(np.int32)
    rows[:, 0], rows[:, -1] = BOS, EOS
    return rows


def name_tokens(pieces: Sequence[str]) -> list[str]:
    """Pieces, as the tokenizer spells them, as they are shown."""
    return [NAMES.get(piece, piece) for piece in pieces]
