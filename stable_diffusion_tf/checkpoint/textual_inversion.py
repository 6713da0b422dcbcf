"""Textual inversion: a word whose vectors were learned from a few pictures.

Gal et al., arXiv 2208.01618. A file holds (n, width) numbers; the word takes n tokens, whose rows
follow those of the text encoder's own table.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..config import CLIPTextConfig
from ..disk import is_folder, is_there
from ..errors import UsageError
from ..tokenizer import EOS, Tokenizer, clean
from .files import open_tensors
from .tensors import Source

FILES = ("learned_embeds.safetensors", "learned_embeds.bin")  # in a folder of diffusers
NAMELESS = ("emb_params", "*")  # the web UIs' names of the tensor: the word is the file's name
TABLE = "text_model.embeddings.token_embedding.weight"
OTHER_MODELS = {1024: "Stable Diffusion 2", 1280: "SDXL"}  # width → who has it


def read_embedding(path: Path) -> tuple[str, np.ndarray]:
    """The word that the file was saved for, and its vectors, (n, width) float32.

    path: a .safetensors, .bin or .pt file of diffusers or of a web UI, or a folder of diffusers.
    Raises UsageError.
    """
    if is_folder(path):
        path = next((path / name for name in FILES if is_there(path / name)), path)
    source = open_tensors(path)
    shapes = source.shapes()
    if {"clip_l", "clip_g"} & shapes.keys():
        raise UsageError(f"{path} is an embedding for SDXL; use one made for Stable Diffusion 1")
    if len(shapes) != 1:
        raise UsageError(
            f"{path} is no textual inversion: it holds {len(shapes)} tensors, not one; "
            f"if it is a model, load it as one"
        )
    name, shape = next(iter(shapes.items()))
    if len(shape) not in (1, 2) or 0 in shape:
        raise UsageError(f"{path} is no textual inversion: its tensor is {shape}, not (n, width)")
    with np.errstate(over="ignore"):  # float64 may hold more, which is told
        rows = np.atleast_2d(source.get(name)).astype(np.float32)
    if not np.isfinite(rows).all():
        raise UsageError(f"{path} holds NaN or infinite numbers; fetch it again")
    return path.stem if name in NAMELESS else name, rows


ANOTHER = "give another, as word='<toy>', or --words '<toy>=FILE'"


def new_word(word: str, tokenizer: Tokenizer, place: object) -> str:
    """The word as prompts will be told to hold it. Raises UsageError where the tokenizer knows it
    already, it is not one word, or it holds what would steer a terminal."""
    word = clean(word)
    if not word or " " in word or not word.isprintable():
        raise UsageError(f"{place}: {word!r} is not one word; {ANOTHER}")
    if len(tokenizer.encode(word)) == 1 or word in tokenizer.added:
        raise UsageError(f"{place}: the word {word} is there already; {ANOTHER}")
    return word


def check_rows(rows: np.ndarray, config: CLIPTextConfig, place: object) -> None:
    """UsageError where vectors, (n, width), cannot follow the table of the text encoder."""
    width = rows.shape[1]
    if width != config.hidden_size:
        maker = OTHER_MODELS.get(width, "another model")
        raise UsageError(
            f"{place} holds vectors {width} wide, as of {maker}; use an embedding made for this "
            f"model, {config.hidden_size} wide"
        )
    if config.vocab_size != EOS + 1:
        raise UsageError(
            f"{place} cannot be added: this text encoder has {config.vocab_size} tokens, not "
            f"{EOS + 1}; use the model that it was trained from"
        )


def with_words(
    config: CLIPTextConfig, source: Source, rows: np.ndarray
) -> tuple[CLIPTextConfig, Source]:
    """A text encoder whose table of tokens goes on with `rows`, (n, width)."""
    return replace(config, vocab_size=config.vocab_size + len(rows)), Extended(source, rows)


class Extended:
    """A text encoder's tensors, its table of tokens followed by `rows`, (n, width) float32."""

    def __init__(self, source: Source, rows: np.ndarray):
        self.place, self.source, self.rows = source.place, source, rows

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = self.source.shapes()
        grown = {k: (v[0] + len(self.rows), *v[1:]) for k, v in shapes.items() if k == TABLE}
        return shapes | grown

    def get(self, key: str) -> np.ndarray:
        found = self.source.get(key)
        return np.concatenate([found.astype(np.float32), self.rows]) if key == TABLE else found
