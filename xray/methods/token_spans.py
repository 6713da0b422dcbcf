"""The context of a prompt in spans of tokens, which another prompt's may replace.

CLIP reads 77 tokens whatever the prompt: a start token, the words, an end token, and padding. Each
attends to those before it only (Radford et al., 2021, section 2.4), so the end and the padding may
carry the whole prompt, and the start none of it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import EOS

SPANS = ("start", "words", "end", "early padding", "late padding")


def split(context: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Span → its vectors (n, width), of a prompt's context (77, width) with token ids (77,). Raises
    UsageError where the prompt leaves no padding."""
    end = int(np.argmax(ids == EOS))
    half = (end + 1 + len(ids)) // 2
    made = dict(zip(SPANS, np.split(context, [1, end, end + 1, half]), strict=True))
    if not len(made["early padding"]):
        raise UsageError("a prompt is so long that it leaves no padding; try 'a cat' and 'a dog'")
    return made


def replace(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], spans: Sequence[str]
) -> np.ndarray:
    """A's context (77, width) with these spans of B's. Where the two differ in length, the last
    padding is cut, or its last vector repeated: cross-attention does not know the order of tokens
    (its keys have no positions)."""
    row = np.concatenate([(b if span in spans else a)[span] for span in SPANS])
    length = sum(map(len, a.values()))
    return row[np.minimum(np.arange(length), len(row) - 1)]


def end_vectors(context: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The vector of each prompt's first end token, by which CLIP represents a text: (b, 77, width),
    ids (b, 77) → (b, width)."""
    return context[range(len(ids)), np.argmax(ids == EOS, axis=1)]
