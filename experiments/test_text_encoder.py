"""What does the text encoder make of words?

CLIP's text encoder (Radford et al., arXiv 2103.00020, section 2.4) turns each of 77 tokens into a
vector, and the UNet is conditioned on nothing but these. Its self-attention is causal: a token
attends to those before it, to none after. So the start token's vector must be the same for every
prompt, and a changed token must leave all vectors before it as they were. That is arithmetic, not
training: it holds in SD 1.x as in the phantom, and is checked on the prompt's own tokens, changed
one by one, and for the start token also on prompts of random tokens.

Left, rows are changed tokens, columns whose vector moves: the grey triangle is what the causal mask
forbids, the last column all that follows. Middle, the cosine of any two tokens' vectors: the same
word at two places need not have the same vector. Right, the prompt as it grows, represented by the
vector of its end token, which attends to all of it. The phantom's encoder was trained so that 120
words differ loudly: its cosines are not those of SD 1.x. Intervals are over its tokens.

The control looks after the changed token instead of before it, where the same check must fail.
"""

from dataclasses import dataclass

import numpy as np

import stable_diffusion_tf
from experiments.figures import text_encoder as figures
from experiments.token_rows import change, grow, name_tokens, strange
from phantom.prompts import not_read
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import BOS, EOS
from xray import measure, script
from xray.measure import mean_of
from xray.methods.causal_mask import after, farthest, moved
from xray.options import EXAMPLE, Prompt, Seeded
from xray.report import Control, Report

SHOWN = 20  # tokens of a long prompt that are grown, changed and shown
DRAWS = 8  # tokens that are put in the place of each, one after the other
STRANGERS = 64  # prompts of random tokens
STILL = 1e-6  # of the longest vector's length: what rounding may move
MOVED = 1e-5  # of it: what cannot be rounding
WRONG = "a vector moved with a token after it, or none moved with a token before it"


@dataclass(frozen=True)
class Options(Seeded):
    prompt: Prompt = EXAMPLE
    """what to encode; of a long one, the first 20 tokens are looked at."""


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    ids = sd.tokenize(options.prompt)[0]
    count = min(SHOWN, int(np.argmax(ids == EOS)) - 1)
    if count < 1:
        raise UsageError("the prompt has no word to encode; try 'a cat'")
    rng, known = np.random.default_rng(options.seed), np.flatnonzero(sd.known_tokens[:BOS])
    strangers = strange(STRANGERS, len(ids), known, rng)
    others = np.concatenate([change(ids, count, known, rng) for _ in range(DRAWS)])
    rows = ids[None], grow(ids, count), others, strangers
    encoded = sd.function("text_encoder")(np.concatenate(rows))  # at once: one shape to compile
    variants = np.split(encoded, np.cumsum([len(some) for some in rows[:-1]]))
    context, grown, changed, _ = variants
    moves = moved(context, changed).reshape(DRAWS, count, -1).mean(0)  # (count, 77)
    start = max(float(moved(context, one)[:, 0].max()) for one in variants)
    seen, ends = context[0, : count + 2], grown[range(count + 1), range(1, count + 2)]
    tokens = name_tokens(sd.tokenizer.pieces(ids[: count + 2]))
    near, later = measure.cosine(seen[1:], seen[:-1], axis=-1), after(moves)
    table = [
        {"place": str(i + 1), "token": tokens[i + 1], "id": int(ids[i + 1])}
        | {"cosine with the one before": float(near[i])}
        | {"changed, it moves, %": 100 * float(moves[i, i + 1])}
        | {"and those after it, %": 100 * float(later[i])}
        for i in range(count)
    ]
    before, least = max(float(farthest(moves, -1).max()), start), float(farthest(moves, 1).min())
    own = mean_of(100 * moves[range(count), range(1, count + 1)], "%")
    passed = before <= STILL and least >= MOVED
    told = "by nothing" if before <= STILL else f"by up to {100 * before:.1g} %"
    finding = (
        f"Changing a token moves its own vector by {own} of the longest, those before it {told}."
    )
    return Report(
        finding,
        Control("those after it move by", f"{100 * least:.2g} % or more", passed, WRONG),
        numbers={
            "own vector": own,
            "vectors after it": mean_of(100 * later, "%"),
            "vectors before it, and the start's of any prompt": f"{100 * before:.1g} % at most",
            "cosine of neighbours": mean_of(near),
        },
        table=table,
        figure=figures.tokens_sheet(
            tokens, measure.cosines(seen), ["nothing", *tokens[1:-1]], measure.cosines(ends),
            moves, f"“{options.prompt}”\n{finding}",
        ),
        tensors={"ids": ids, "context": context, "grown": grown, "changed": changed}
        | {"moves": moves},
        notes=not_read(sd, options.prompt),
    )  # fmt: skip


if __name__ == "__main__":
    script.run_experiment(main, Options)
