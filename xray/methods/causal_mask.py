"""Which of a prompt's vectors move when one of its tokens is changed."""

import numpy as np


def moved(context: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far each vector is from that of the context (1, n, width), as a share of the longest of
    the context, since a token that says nothing may have no length: (b, n, width) → (b, n)."""
    return np.linalg.norm(others - context, axis=-1) / np.linalg.norm(context, axis=-1).max()


def farthest(moves: np.ndarray, side: int) -> np.ndarray:
    """Of each changed token, the largest move before it (side −1) or after it (1): (b, n) → (b,)"""
    return np.where(side * distance(moves) > 0, moves, 0).max(1)


def after(moves: np.ndarray) -> np.ndarray:
    """Of each changed token, the mean move after it: (b, n) → (b,)."""
    return np.mean(moves, axis=1, where=distance(moves) > 0)


def distance(moves: np.ndarray) -> np.ndarray:
    """(b, n): by how many places each token stands after the changed one; row 0 changes token 1."""
    rows, tokens = moves.shape
    return np.arange(tokens) - np.arange(1, rows + 1)[:, None]
