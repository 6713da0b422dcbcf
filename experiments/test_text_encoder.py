"""What does the text encoder make of words?

CLIP's text encoder (Radford et al., arXiv 2103.00020, section 2.4) turns each of 77 tokens into a
vector, and the UNet sees nothing but these. Its self-attention is causal: a token hears those that
stand before it, none that stand after. So the start token's vector must be the same for every
prompt, and a changed token must leave all vectors before it as they were. That is arithmetic, not
training: it holds in SD 1.x as in the phantom, and is checked on the prompt's own tokens, changed
one by one, and for the start token also on prompts of random tokens.

Left, the cosine of any two tokens' vectors: the same word at two places need not have the same
vector. Middle, the prompt as it grows, told by the vector of its end token, which has heard it
all. Right, rows are changed tokens, columns whose vector moves: the grey triangle is what the mask
forbids, the last column all that follows. CLIP was trained on pairs of pictures and texts; the
phantom's encoder on who stands where, with 80 words, so its cosines are not those of SD 1.x.

The control looks after the changed token instead of before it, where the same check must fail.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import text as figures
from experiments.token_rows import change, grow, name_tokens, strange
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import BOS, EOS
from xray import measure, script
from xray.measure.telling import with_error

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

EXAMPLE = "a rabbit left of a strawberry on a purple background"
SHOWN = 20  # tokens of a long prompt that are grown, changed and shown
DRAWS = 8  # tokens that are put in the place of each, one after the other
STRANGERS = 64  # prompts of random tokens
STILL = 1e-6  # of a vector's length: what rounding may move
MOVED = 1e-3  # of it: what cannot be rounding


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Tokens, how alike their vectors are, and who hears whom.

    Args:
        prompt: what to encode; of a long one, the first 20 tokens are looked at.
        seed: draws the tokens that are put in the place of others.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_seed(seed)
    sd = script.load_model(weights)
    ids = sd.tokenize(prompt)[0]
    count = min(SHOWN, int(np.argmax(ids == EOS)) - 1)
    if count < 1:
        raise UsageError("the prompt has no word to encode; try 'a cat'")
    variants = encode_variants(sd, ids, count, np.random.default_rng(seed))
    context, grown, changed, _ = variants
    moves = moved(context, changed).reshape(DRAWS, count, -1).mean(0)
    starts = np.concatenate([moved(context, rows)[:, 0] for rows in variants])
    folder = script.make_folder(out, "test_text_encoder", prompt)
    with script.saving_into(folder):
        seen = context[0, : count + 2]
        ends = grown[range(count + 1), range(1, count + 2)]
        title = finding(moves, starts, neighbours(seen))
        tokens = name_tokens(sd.tokenizer.pieces(ids[: count + 2]))
        figure = figures.tokens_sheet(
            tokens,
            measure.cosines(seen),
            ["nothing", *tokens[1:-1]],
            measure.cosines(ends),
            shown(moves, count + 2),
            f"“{prompt}”: {title}",
        )
        script.save_figure(figure, folder / "tokens.png")
        arrays = {"ids": ids, "context": context, "grown": grown, "changed": changed}
        save_file({**arrays, "moves": moves}, folder / "tokens.safetensors")
    tell(tokens, ids, neighbours(seen), neighbours(ends), moves)
    least = 100 * farthest(moves, 1).min()
    script.conclude(
        title,
        f"after a changed token, the vector that moves most moves by {least:.1f} % or more",
        picture=folder / "tokens.png",
        tensors=folder / "tokens.safetensors",
    )
    check(moves, starts)


def encode_variants(
    sd: "StableDiffusion", ids: np.ndarray, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """The contexts, (n, 77, width) each, of a prompt (77,), of the prompt as it grows, of it with
    one of its first count tokens changed (DRAWS times over), and of random prompts."""
    known = np.flatnonzero(sd.known_tokens[:BOS])
    strangers = strange(STRANGERS, len(ids), known, rng)
    changed = np.concatenate([change(ids, count, known, rng) for _ in range(DRAWS)])
    rows = ids[None], grow(ids, count), changed, strangers
    encoded = sd.function("text_encoder")(np.concatenate(rows))  # at once: one shape to compile
    return np.split(encoded, np.cumsum([len(some) for some in rows[:-1]]))


# --- measuring ---------------------------------------------------------------------------------


def moved(context: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far each vector is from that of the context (1, n, width), as a share of its length:
    (b, n, width) → (b, n)."""
    return np.linalg.norm(others - context, axis=-1) / np.linalg.norm(context, axis=-1)


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


def shown(moves: np.ndarray, columns: int) -> np.ndarray:
    """Moves (b, n) in per cent, as many as are shown and the mean of the rest: (b, columns + 1)."""
    percent = np.where(moves > STILL, 100 * moves, 0)
    return np.column_stack([percent[:, :columns], percent[:, columns:].mean(1)])


def neighbours(vectors: np.ndarray) -> np.ndarray:
    """The cosine of each vector and the one before, (n, width) → (n − 1,)."""
    return measure.cosine(vectors[1:], vectors[:-1], axis=-1)


def check(moves: np.ndarray, starts: np.ndarray) -> None:
    """Raises SystemExit where a vector hears a later token, or none hears an earlier one."""
    if starts.max() > STILL:
        raise SystemExit("the control failed: the start token's vector depends on the prompt")
    if farthest(moves, -1).max() > STILL:
        raise SystemExit("the control failed: a vector moved with a token that stands after it")
    if farthest(moves, 1).min() < MOVED:
        raise SystemExit("the control failed: no vector moved after a changed token")


# --- telling -----------------------------------------------------------------------------------


def tell(
    tokens: Sequence[str], ids: np.ndarray, near: np.ndarray, steps: np.ndarray, moves: np.ndarray
) -> None:
    """A line for each token. near: the cosine of its vector and the one before; steps: of the
    prompt up to it and the prompt without it."""
    later = after(moves)
    print("                        cosine with     prompt with   changed, it moves   and those")
    print("place  token       id   the one before  and without   itself, %           after it, %")
    for i in range(len(moves)):
        print(
            f"{i + 1:5}  {tokens[i + 1]:10.10}{ids[i + 1]:6}{near[i]:11.2f}{steps[i]:15.2f}"
            f"{100 * moves[i, i + 1]:15.0f}{100 * later[i]:20.0f}"
        )


def finding(moves: np.ndarray, starts: np.ndarray, near: np.ndarray) -> str:
    """One sentence; its words are chosen by the numbers."""
    before, own = farthest(moves, -1).max(), moves[distance(moves) == 0]
    holds = "what stands before it" if before <= STILL else "what stands before and after it"
    return (
        f"a token's vector holds itself and {holds}: changing a token moves its own vector by "
        f"{with_error(100 * own, 0, '%')} of its length, those after it by "
        f"{with_error(100 * after(moves), 0, '%')} and those before it by {exactly(before)}; the "
        f"start token's differs by {exactly(starts.max())} between {len(starts)} prompts; "
        f"neighbours have a cosine of {with_error(near, 2)}"
    )


def exactly(share: float) -> str:
    return f"{100 * share:.1g} % at most" if share else "exactly 0"


if __name__ == "__main__":
    script.run(main)
