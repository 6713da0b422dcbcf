"""Do prompts of one kind lie together?

Eight families of prompts, six each: some differ in the kind of thing alone (animals, food …), some
share a property or a place (xray/families.py). A prompt is told by the vector of its end token,
which has heard every word; CLIP was trained to put the meaning of a text there (Radford et al.,
arXiv 2103.00020, section 2.4). The number is by how much the cosine of a prompt with its own family
is higher than with the others. It is given for the whole context too, all 77 vectors as one, which
is what the UNet reads, and for the families of one wording by themselves: there no common word can
help, only meaning.

Left, families that lie together are squares on the diagonal; middle, clouds of one colour. Right,
two prompts in detail: dark up to the first word that differs, as no token hears a later one; the
channels are not alike. All cosines of CLIP's texts are high, for they lie in a narrow cone (arXiv
2203.02053), so only differences of cosines say something. The phantom's text encoder was trained
only to tell what stands where; that a cat is rather a dog than a pizza is no use to it.

The control draws the families by lot, a thousand times, among prompts of the same length only: a
vector tells its place too, and prompts as long as each other are alike for that alone. True ones
must lie together more closely.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.families import EVERYDAY, SPRITES, of_one_wording, prompts_of
from experiments.figures import text as figures
from experiments.figures.text import Cloud, Contrast
from experiments.token_rows import name_tokens
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import EOS
from xray import measure, script
from xray.measure.permutation import SHUFFLES, Nearness, compare
from xray.measure.telling import with_error

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

OWN = "your own"
CHANCE = 0.05  # as often families drawn by lot may lie as close
PADDING, MOST = 3, 24  # rows shown of two prompts in detail: after their end, and in all


def main(
    prompts: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    /,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Families of prompts, and how near each other they lie.

    Args:
        prompts: a family of your own beside the eight, two or more.
        seed: draws families by lot.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_seed(seed)
    if len(prompts) == 1:
        raise UsageError("one prompt is no family; name two or more")
    sd = script.load_model(weights)
    table = EVERYDAY if knows(sd, EVERYDAY) else SPRITES
    families = prompts_of(table) | ({OWN: list(prompts)} if prompts else {})
    words = [*chain(*families.values())]
    labels = np.repeat(np.arange(len(families)), [len(family) for family in families.values()])
    ids, context = sd.tokenize(words), sd.encode_text(words)
    ends, lengths = end_vectors(context, ids), np.argmax(ids == EOS, axis=1)
    told_by = {"end token": ends, "whole context": context.reshape(len(words), -1)}
    kinds = of_one_wording(table)
    groups = {"all": labels >= 0, "one wording": np.isin(labels, find(kinds, [*families]))}
    found = {
        (vector, group): nearness_in(chosen, vectors, labels, lengths, seed)
        for vector, vectors in told_by.items()
        for group, chosen in groups.items()
    }
    every, alike = found["end token", "all"], found["end token", "one wording"]
    title = finding(every, alike, kinds)
    folder = script.make_folder(out, "text_semantic_similarity", [*prompts, "families"][0])
    with script.saving_into(folder):
        cloud = Cloud(np.array([*families])[labels], measure.cosines(ends), *principal(ends))
        pair = contrast(sd, find(pick_pair(families), words), words, ids, context)
        script.save_figure(figures.families_sheet(cloud, pair, title), folder / "families.png")
        arrays = {"ids": ids, "families": labels, "context": context, "ends": ends}
        save_file(arrays, folder / "families.safetensors")
    tell(found, [word for prompt in prompts for word in sd.unknown_words(prompt)])
    script.conclude(
        title,
        tell_lot(every),
        picture=folder / "families.png",
        tensors=folder / "families.safetensors",
    )
    if every.chance >= CHANCE:
        raise SystemExit("the control failed: families drawn by lot lie as close together")


def knows(sd: "StableDiffusion", table: Mapping) -> bool:
    """Whether the model has seen every word of the families."""
    return bool(sd.known_tokens[sd.tokenize([*chain(*prompts_of(table).values())])].all())


def nearness_in(
    chosen: np.ndarray, vectors: np.ndarray, labels: np.ndarray, lengths: np.ndarray, seed: int
) -> Nearness:
    """How near the chosen prompts, (b,) bool, are to their families; the others are left out."""
    cosines = measure.cosines(vectors[chosen])
    return compare(cosines, labels[chosen], lengths[chosen], np.random.default_rng(seed))


def find(names: Sequence[str], among: Sequence[str]) -> list[int]:
    return [among.index(name) for name in names]


# --- vectors -----------------------------------------------------------------------------------


def end_vectors(context: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The vector of each prompt's first end token: (b, 77, width), ids (b, 77) → (b, width)."""
    return context[range(len(ids)), np.argmax(ids == EOS, axis=1)]


def principal(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, width) along their first two principal components, (n, 2), and the share of the
    variance that each has, (2,)."""
    left, sizes, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    return left[:, :2] * sizes[:2], sizes[:2] ** 2 / np.sum(sizes**2)


def pick_pair(families: Mapping[str, Sequence[str]]) -> list[str]:
    """The two prompts that are shown in detail: your own, or the first of the last two families."""
    return [*families[OWN][:2]] if OWN in families else [p[0] for p in [*families.values()][-2:]]


def contrast(
    sd: "StableDiffusion",
    pair: Sequence[int],
    words: Sequence[str],
    ids: np.ndarray,
    context: np.ndarray,
) -> Contrast:
    """Two of the prompts in detail, up to their ends."""
    last = int(np.argmax(ids[pair] == EOS, axis=1).max())
    rows = min(last + 1 + PADDING, MOST)
    a, b = (name_tokens(sd.tokenizer.pieces(ids[i, :rows])) for i in pair)
    tokens = [x if x == y else f"{x} / {y}" for x, y in zip(a, b, strict=True)]
    one, other = context[pair, :rows]
    return Contrast(tuple(words[i] for i in pair), tokens, np.abs(one - other))


# --- telling -----------------------------------------------------------------------------------


def tell(found: Mapping[tuple[str, str], Nearness], unknown: Sequence[str]) -> None:
    for word in dict.fromkeys(unknown):
        print(f"the model never saw '{word}'")
    print("told by        families     own family  others  difference       by lot, 95 %       p")
    for (vector, group), one in found.items():
        low, high = one.interval
        print(
            f"{vector:15}{group:13}{one.own.mean():10.2f}{one.others.mean():8.2f}  "
            f"{with_error(one.more, 3):17}{low:+.3f} … {high:+.3f}  {one.chance:.3f}"
        )


def finding(every: Nearness, kinds: Nearness, names: Sequence[str]) -> str:
    """One sentence; its words are chosen by the numbers."""
    return (
        f"prompts of one family {verdict(every)}: the cosine of their end tokens' vectors is "
        f"{with_error(every.more, 2)} higher than with other families ({lot(every, 2)}); "
        f"{', '.join(names)}, in one wording, {verdict(kinds)}: {with_error(kinds.more, 3)} "
        f"({lot(kinds, 3)})"
    )


def lot(one: Nearness, digits: int) -> str:
    return f"by lot {one.by_lot.mean():.{digits}f}, p = {one.chance:.3f}"


def verdict(one: Nearness) -> str:
    return "lie together" if one.chance < CHANCE else "do not lie together more than by chance"


def tell_lot(one: Nearness) -> str:
    low, high = one.interval
    closer = np.sum(one.by_lot >= one.more.mean())
    return (
        f"families drawn by lot among prompts as long: {one.by_lot.mean():+.3f}, 95 % from "
        f"{low:+.3f} to {high:+.3f}; as close as the true ones {closer} times of {SHUFFLES}"
    )


if __name__ == "__main__":
    script.run(main)
