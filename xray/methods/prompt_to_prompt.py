"""Words replaced, added and re-weighted by editing attention: prompt-to-prompt.

Hertz et al., arXiv 2208.01626. Source and targets are drawn in one batch, the source in its first
row, so nothing is stored: at each step the source's attention of right then is injected into the
targets. Where so many do not fit, the source is drawn anew with some of them at a time. The
functions made here are for `Edit`, and act on the prompt's half.
"""

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import EOS
from xray.attention import INSIDE, probe, word_maps
from xray.attention.attention import copied
from xray.measure import between_extremes

from .drawing import parts_that_fit

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from stable_diffusion_tf.tokenizer import Tokenizer
    from xray.probe.interventions import Reads

CROSS, SELF = "unet.*.attn2.probs", "unet.*.attn1.probs"
PLAIN, EDITED = "other word, no edit", "replace"  # two ways to draw that are compared
WEIGHT = 4.0  # of the word that is weighted


class Row(NamedTuple):
    """One picture of the batch, and what of the source's attention is injected."""

    name: str
    prompt: str
    cross: bool = False
    own: bool = False  # self-attention too
    weight: float = 1.0  # of the word that is weighted


def rows_of(source: str, other: str, refined: str | None) -> list[Row]:
    """The ways to draw: as it is, with its own attention injected, a word replaced without and with
    that of the source, words added likewise, and a word's attention multiplied."""
    rows = [
        Row("source", source),
        Row("source's attention\ninto itself", source, True, True),
        Row(PLAIN, other),
        Row(EDITED, other, True),
        Row("replace, and\nself-attention", other, True, True),
    ]
    if refined:
        rows += [Row("words added, no edit", refined), Row("refine", refined, True)]
    return [*rows, Row(f"re-weight × {WEIGHT:g}", source, True, weight=WEIGHT)]


class Shares(NamedTuple):
    """Of the steps, from the first on: for how many the source's attention is injected."""

    cross: float
    own: float


def draw_rows(
    sd: "StableDiffusion",
    rows: list[Row],
    contexts: np.ndarray,
    weighted: list[int],
    shares: Shares,
    noise: np.ndarray,
    run: dict,
) -> tuple[np.ndarray, "list[list[Reads]]"]:
    """Where the runs end, (noises, rows, h, w, c), and what the source attended to: for each noise
    and step its cross-attention, the mean over heads.

    rows: the source first; contexts: theirs, (rows, 77, width). weighted: positions of the tokens
    that are weighted. noise: (noises, h, w, c). run: the other arguments of `sd.denoise`.
    """

    def edits(part: Sequence[int]) -> list:
        return edits_of(sd, [rows[i] for i in part], weighted, shares, run["steps"])

    targets = np.repeat(noise[:1], len(rows) - 1, 0)
    parts = [[0, *(1 + part)] for part in parts_that_fit(sd, targets, along=1)]
    return draw_parts(sd, parts, edits, contexts, noise, run)


def draw_parts(
    sd: "StableDiffusion",
    parts: Sequence[Sequence[int]],
    edits: Callable[[Sequence[int]], list],
    contexts: np.ndarray,
    noise: np.ndarray,
    run: dict,
) -> tuple[np.ndarray, "list[list[Reads]]"]:
    """What `draw_rows` does, a part of the rows at a time. parts: the rows of each, of the first
    the source first of all; edits: such rows → what is done to them."""
    from xray.probe.instrumented import instrument

    begun, seen = np.repeat(noise[:, None], len(contexts), 1), []  # (noises, rows, h, w, c)
    ended = np.empty_like(begun)
    for part in parts:
        edited = instrument(sd, [] if seen else probe(), edits(part))
        shots = [[] for _ in noise]
        for start, end, kept in zip(begun, ended, shots, strict=True):
            for step in edited.denoise(contexts[part], latent=start[part], **run):
                kept.append(of_source(edited.reads, len(part)))
                end[part] = step.x_prev
        seen = seen or shots
    return ended, seen


def edits_of(
    sd: "StableDiffusion", rows: list[Row], weighted: list[int], shares: Shares, steps: int
) -> list:
    """The edits that do what the rows say."""
    from xray.probe.interventions import Edit

    ids = sd.tokenize([row.prompt for row in rows])
    place, known = (np.stack(one) for one in zip(*(align(ids[0], to) for to in ids), strict=True))
    known &= np.array([row.cross for row in rows])[:, None]
    weights = np.ones(ids.shape, np.float32)
    weights[:, weighted] = np.array([row.weight for row in rows])[:, None]
    own = np.array([row.own for row in rows])
    cross_steps, self_steps = (range(round(share * steps)) for share in shares)
    return [
        Edit(CROSS, inject_cross(place, known), cross_steps),
        Edit(CROSS, reweight(weights)),
        Edit(SELF, inject_self(own), self_steps),
    ]


def of_source(reads: "Reads", rows: int) -> "Reads":
    """What was read of the first row, in each half."""
    kept = copied(reads)
    kept.update({name: value[::rows] for name, value in reads.items()})
    return kept


# --- measuring ---------------------------------------------------------------------------------


def mask_of(seen: "Sequence[Reads]", word: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """Where the source attends to a word, by the positions of its tokens, (H, W) bool; seen: a
    `Reads` for each step of a square latent."""
    heat = word_maps(seen, [("word", word)], grid=shape)["word"]
    return between_extremes(heat) >= INSIDE


def change(images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """How far pictures (rows, n, H, W, 3) in [-1, 1] are from the first row's, outside and inside
    of the masks (n, H, W): RMS in per cent of full scale, (rows, n) each."""
    square = ((images - images[0]).astype(np.float64) ** 2).mean(-1)
    parts = {"outside": ~masks, "inside": masks}
    return {
        name: 50 * np.sqrt((square * part).sum((-2, -1)) / np.maximum(part.sum((-2, -1)), 1))
        for name, part in parts.items()
    }


# --- tokens ------------------------------------------------------------------------------------


def align(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of the target's tokens, (77,), the position in the source whose attention it takes
    over, and whether there is one.

    Tokens that both have keep their partner, a token exchanged takes the place of the one that it
    stands for, and of a token added nothing is known. Padding stays where it is, as in the paper's
    code. source, target: token ids, (77,) each.
    """
    first_padding = min(count(source), len(source) - 1)
    place = np.maximum(np.arange(len(target)), first_padding)
    known = np.ones(len(target), bool)
    for kind, i, i_end, j, j_end in differences(source, target):
        spread = np.linspace(i, i_end, j_end - j, endpoint=False)
        place[j:j_end] = np.floor(spread).astype(int)
        known[j:j_end] = kind != "insert"
    return place, known


def replaced(source: np.ndarray, target: np.ndarray) -> list[int]:
    """The positions of the source's tokens (77,) that the target has others for. Raises UsageError
    where there are none."""
    found = differences(source, target)
    places = [p for kind, i, i_end, *_ in found if kind == "replace" for p in range(i, i_end)]
    if not places:
        raise UsageError("no word is replaced between the prompts; try 'a cat' and 'a dog'")
    return places


def replaced_words(tokenizer: "Tokenizer", source: str, target: str) -> tuple[str, str]:
    """The words that are replaced: the source's, the target's."""

    def words(mine: str, theirs: str) -> str:
        places = set(replaced(*tokenizer([mine, theirs])))
        return " ".join(word for word, at in tokenizer.words(mine) if places.intersection(at))

    return words(source, target), words(target, source)


def differences(source: np.ndarray, target: np.ndarray) -> list[tuple[str, int, int, int, int]]:
    """What makes one prompt of the other, as difflib tells it, the padding left out."""
    prompts = (ids[: count(ids)].tolist() for ids in (source, target))
    return SequenceMatcher(None, *prompts, autojunk=False).get_opcodes()


def count(ids: np.ndarray) -> int:
    """Tokens (77,) up to the first end, which is one of them."""
    return int(np.argmax(ids == EOS)) + 1


# --- what the edits do -------------------------------------------------------------------------


def inject_cross(place: np.ndarray, known: np.ndarray) -> Callable[[Any], Any]:
    """The source's cross-attention for the tokens (rows, 77) of each target, where it is known."""
    from keras import ops

    def edit(probs: Any) -> Any:
        uncond, cond = ops.split(probs, 2)  # (rows, heads, h·w, 77)
        taken = ops.moveaxis(ops.take(cond[0], place, axis=-1), 2, 0)
        return ops.concatenate([uncond, ops.where(known[:, None, None], taken, cond)])

    return edit


def inject_self(own: np.ndarray) -> Callable[[Any], Any]:
    """The source's self-attention for the rows (rows,) bool that are to have it."""
    from keras import ops

    def edit(probs: Any) -> Any:
        uncond, cond = ops.split(probs, 2)  # (rows, heads, h·w, h·w)
        return ops.concatenate([uncond, ops.where(own[:, None, None, None], cond[:1], cond)])

    return edit


def reweight(weights: np.ndarray) -> Callable[[Any], Any]:
    """Each token's attention times its weight, (rows, 77), in the prompt's half, or in all of a
    batch that has no halves; 1 leaves it."""
    from keras import ops

    def edit(probs: Any) -> Any:  # (2·rows or rows, heads, h·w, 77)
        before = probs.shape[0] - len(weights)
        whole = np.pad(weights, ((before, 0), (0, 0)), constant_values=1)
        return probs * ops.cast(whole[:, None, None], probs.dtype)

    return edit
