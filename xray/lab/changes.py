"""The changes of a run as edits, and as the lines of Python that make the same."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_diffusion_tf.errors import UsageError
from xray.film import Film
from xray.film.cache import run
from xray.film.page import BLOCKS
from xray.methods import steering
from xray.methods.ablation import BLOCKS as PARTS
from xray.probe.addresses import matches

from .asks import Ask, Change

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.probe.interventions import Edit

CROSS = "unet.*.attn2.probs"
MIDDLE = "unet.mid_block"
NOISES = 6  # from which a direction is made


class Places:
    """What of a model a change may name: its blocks, what each adds, and its cross-attentions."""

    def __init__(self, sd: "StableDiffusion"):
        from xray.probe import taps

        found = [tap for tap in taps(sd) if tap.address.startswith("unet.")]
        self.blocks = [t.address for t in found if any(matches(p, t.address) for p in BLOCKS)]
        self.heads = {t.address: t.shape[1] for t in found if matches(CROSS, t.address)}
        self.middle = next(t.shape[1:] for t in found if t.address == MIDDLE)
        adds = [
            t.address
            for t in found
            if any(matches(p, t.address) for p in PARTS) and ".skips." not in t.address
        ]
        self.adds = {b: [at for at in adds if at.startswith(f"{b}.")] for b in self.blocks}

    def check(self, change: Change) -> None:
        """Raises UsageError for a place that the model does not have."""
        known: Sequence[str] = {
            "off": self.blocks,
            "patch": self.blocks,
            "head": [*self.heads],
        }.get(change.kind, [change.address])
        if change.address not in known:
            raise UsageError(f"the model has no {change.address[:80]!r} to change")
        if change.kind == "head" and change.head >= self.heads[change.address]:
            raise UsageError(
                f"there is no head {change.head}: {self.heads[change.address]} are there"
            )


def edits_of(
    sd: "StableDiffusion", ask: Ask, places: Places, films: Mapping[str, Film]
) -> "list[Edit]":
    """Raises UsageError for a change that cannot be made."""
    made = []
    for change in ask.changes:
        places.check(change)
        made.append(MAKERS[change.kind](sd, ask, change, places, films))
    return made


# --- one maker for each kind -------------------------------------------------------------------


def weigh(sd: Any, ask: Ask, change: Change, *_: Any) -> "Edit":
    from xray.probe import Edit

    return Edit(CROSS, scaled(change.factor), half="cond", tokens=change.tokens)


def scaled(factor: float) -> Callable[[Any], Any]:
    return lambda probs: probs * factor


def off(sd: Any, ask: Ask, change: Change, places: Places, *_: Any) -> "Edit":
    from xray.probe import Edit

    return Edit(places.adds[change.address], scaled(0.0))


def head(sd: Any, ask: Ask, change: Change, *_: Any) -> "Edit":
    from xray.probe import Edit

    return Edit(change.address, scaled(0.0), heads=[change.head])


def patch(
    sd: "StableDiffusion", ask: Ask, change: Change, places: Places, films: Mapping[str, Film]
) -> "Edit":
    """The other film's run is made once more, and its block read."""
    from xray.probe import Edit

    if change.film not in films:
        raise UsageError(f"there is no film {change.film[:80]!r}")
    facts = films[change.film].facts
    told = {name: facts[name] for name in ("negative", "guidance", "eta", "seed")}
    quiet = {"progress": lambda rows: rows, "steps": ask.steps}
    _, source = run(sd, facts["prompt"], read=change.address, **told, **quiet)
    return Edit(change.address, source=source)


def direction(sd: "StableDiffusion", ask: Ask, change: Change, places: Places, *_: Any) -> "Edit":
    """The mean difference that the word makes in the middle, over noises of other seeds."""
    from xray.probe import Edit

    if change.old not in ask.prompt:
        raise UsageError(f"the prompt has no {change.old!r}")
    prompts = [ask.prompt, ask.prompt.replace(change.old, change.new)]
    contexts = sd.encode_text(prompts).repeat(NOISES, axis=0)
    noise = np.tile(sd.draw_noise(ask.seed + 1, NOISES), (2, 1, 1, 1))
    how = {"uncond": sd.encode_text([""]), "steps": ask.steps, "guidance": ask.guidance}
    how["progress"] = lambda rows: rows
    means, _ = steering.read_means(sd, [MIDDLE], contexts, noise, how)
    old, new = np.split(means[MIDDLE], 2, axis=1)  # (steps, noises, channels)
    added = change.factor * (new - old).mean(1, keepdims=True)
    vectors = [
        steering.over_positions({MIDDLE: step}, {MIDDLE: places.middle}, 1) for step in added
    ]
    return Edit(MIDDLE, operator.add, source=vectors)


MAKERS = {"weigh": weigh, "off": off, "head": head, "patch": patch, "direction": direction}


# --- as Python ---------------------------------------------------------------------------------


def python_of(ask: Ask, weights: str, places: Places) -> str:
    """The lines that make this run."""
    lines = ["import xray", "from stable_diffusion_tf import StableDiffusion", ""]
    lines += [f"sd = StableDiffusion.load({weights!r})", "edits = []"]
    for change in ask.changes:
        lines += WRITERS[change.kind](change, places)
    asked = {n: getattr(ask, n) for n in ("negative", "steps", "guidance", "eta", "seed")}
    said = ", ".join(f"{name}={value!r}" for name, value in asked.items())
    lines.append(f"image, cache = xray.run(sd, {ask.prompt!r}, edits=edits, {said})")
    return "\n".join(lines)


WRITERS: Mapping[str, Callable[[Change, Places], list[str]]] = {
    "weigh": lambda c, _: [
        f'edits.append(xray.Edit("{CROSS}", lambda p: p * {c.factor:g}, half="cond", '
        f"tokens={[*c.tokens]}))"
    ],
    "off": lambda c, places: [
        f"edits.append(xray.Edit({places.adds[c.address]}, lambda y: y * 0))"
    ],
    "head": lambda c, _: [
        f'edits.append(xray.Edit("{c.address}", lambda p: p * 0, heads=[{c.head}]))'
    ],
    "patch": lambda c, _: [
        f"_, source = xray.run(sd, PROMPT_OF_{c.film.replace('-', '_')}, read={c.address!r})",
        f"edits.append(xray.Edit({c.address!r}, source=source))",
    ],
    "direction": lambda c, _: [
        f"# the direction from {c.old!r} to {c.new!r}, × {c.factor:g}: experiments/test_h_space.py"
    ],
}
