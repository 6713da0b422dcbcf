"""Do prompts of one kind lie together?

Eight families of six prompts: some differ in the kind of thing alone (animals, food …), some share
a property or a place (experiments/families.py). A prompt is represented by the vector of its end
token, where CLIP was trained to put the meaning of a text (Radford et al., arXiv 2103.00020,
section 2.4). The number is by how much the cosine of a prompt with its own family is higher than
with the others, with an interval over families. The table has it for each family, for all 77
vectors as one, and for the families of one wording, where only meaning can help.

Left, families that lie together are squares on the diagonal; middle, clouds of one colour. Right,
how far two prompts' vectors are apart. The last two families differ in one word: they coincide if
prompts that name the same thing have a cosine above 0.99. All cosines of CLIP's texts are high, as
they lie in a narrow cone (arXiv 2203.02053): only differences say something. The phantom's encoder
learned to tell words apart; that a cat is rather a dog than a pizza is no use to it.

The control is a permutation test, 1000 shuffles within prompts of equal length: a vector represents
its position too, so that prompts of one length are alike for that alone.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np

import stable_diffusion_tf
from experiments.families import of_one_wording, prompts_of, table_for
from experiments.figures import semantic_similarity as figures
from experiments.token_rows import name_tokens
from phantom.prompts import not_read
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.tokenizer import EOS
from xray import script
from xray.measure import cosine, cosines, mean_of
from xray.measure.permutation import Nearness, permutation_test
from xray.methods.token_spans import end_vectors
from xray.options import Prompts, Seeded
from xray.report import Control, Report

OWN = "your own"
CHANCE = 0.05  # as often shuffled families may be as near
SAME = 0.99  # the cosine from which on two prompts coincide
WRONG = "shuffled families lie as near together"


@dataclass(frozen=True)
class Options(Seeded):
    prompts: Prompts = ()
    """a family of your own beside the eight, two prompts or more."""

    def check(self) -> None:
        super().check()
        if len(self.prompts) == 1:
            raise UsageError("one prompt is no family; name two or more")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    table = table_for(sd)
    families = prompts_of(table) | ({OWN: [*options.prompts]} if options.prompts else {})
    prompts, twins = [*chain(*families.values())], [*table][-2:]
    labels = np.repeat(np.arange(len(families)), [len(family) for family in families.values()])
    names = np.array([*families])[labels]
    ids, context = sd.tokenize(prompts), sd.encode_text(prompts)
    ends, lengths = end_vectors(context, ids), np.argmax(ids == EOS, axis=1)
    vectors = {"end token": ends, "whole context": context.reshape(len(ids), -1)}
    groups = {"all": names != "", "one wording": np.isin(names, of_one_wording(table))}
    near = {
        f"{group}, {what}": permutation_test(
            cosines(x[some]), names[some], lengths[some], options.seed
        )
        for what, x in vectors.items()
        for group, some in groups.items()
    }
    every = near["all, end token"]
    near |= {f"{name}, end token": every.select(name) for name in families}
    same = {
        what: mean_of(cosine(*(x[names == name] for name in twins), axis=-1))
        for what, x in vectors.items()
    }
    own = near.get(f"{OWN}, end token")
    finding = find(own or every, "Your prompts" if own else "Prompts of one family")
    if not own and same["end token"].low > SAME:
        finding = f"{finding[:-1]}; “{twins[0]}” and “{twins[1]}” coincide."
    pair = families[OWN][:2] if own else [families[name][0] for name in twins]
    tokens = [name_tokens(sd.tokenizer.pieces(row)) for row in sd.tokenize(pair)]
    return Report(
        finding,
        Control(
            "times of 1000, shuffled families are as near", every.closer, every.p < CHANCE, WRONG
        ),
        table=[{"prompts": name} | one.as_row() for name, one in near.items()]
        + [{"prompts": f"{' and '.join(twins)}, {w}", "of one thing": s} for w, s in same.items()],
        figure=figures.families_sheet(names, ends, pair, tokens, sd.encode_text(pair), finding),
        tensors={"ids": ids, "families": labels, "context": context, "ends": ends},
        notes=[line for prompt in options.prompts for line in not_read(sd, prompt)],
    )


def find(near: Nearness, who: str) -> str:
    lie = "lie" if near.p < CHANCE else "do not clearly lie"
    said = f"{who} {lie} together: cosine {near.difference} above other families"
    return f"{said}, shuffled {near.shuffled.short}."


if __name__ == "__main__":
    script.run_experiment(main, Options)
