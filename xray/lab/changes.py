"""The changes of a run as edits, and as the lines of Python that make the same."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_diffusion_tf.checkpoint.places import locate
from stable_diffusion_tf.errors import UsageError
from xray.film import Film
from xray.film.cache import run
from xray.film.page import BLOCKS
from xray.methods import steering
from xray.methods.ablation import BLOCKS as PARTS
from xray.methods.ddim_inversion import ddim_invert
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
    prompt, told = asked_for(films[change.film])
    quiet = {"progress": lambda rows: rows, "steps": ask.steps}
    _, source = run(sd, prompt, read=change.address, **told, **quiet)
    return Edit(change.address, source=source)


def asked_for(film: Film) -> tuple[str, dict[str, Any]]:
    """The prompt of a film's run, and what else it was asked but its steps."""
    told = {name: film.facts[name] for name in ("negative", "guidance", "eta", "seed")}
    return film.facts["prompt"], told


def direction(sd: "StableDiffusion", ask: Ask, change: Change, *_: Any) -> "Edit":
    words, how = (change.old, change.new), (ask.steps, ask.guidance, ask.seed)
    return steered(sd, ask.prompt, *words, change.factor, *how)


def steered(
    sd: "StableDiffusion",
    prompt: str,
    old: str,
    new: str,
    factor: float,
    steps: int,
    guidance: float,
    seed: int,
) -> "Edit":
    """What a word is to another, added in the middle in a run of so many steps: the mean difference
    that it makes there, over noises of the next seed. Raises UsageError where the prompt lacks the
    old word."""
    from xray.probe import Edit, taps

    if old not in prompt:
        raise UsageError(f"the prompt has no {old!r}")
    contexts = sd.encode_text([prompt, prompt.replace(old, new)]).repeat(NOISES, axis=0)
    noise = np.tile(sd.draw_noise(seed + 1, NOISES), (2, 1, 1, 1))
    how = {"uncond": sd.encode_text([""]), "steps": steps, "guidance": guidance}
    how["progress"] = lambda rows: rows
    means, _ = steering.read_means(sd, [MIDDLE], contexts, noise, how)
    first, second = np.split(means[MIDDLE], 2, axis=1)  # (steps, noises, channels)
    added = factor * (second - first).mean(1, keepdims=True)
    shape = {MIDDLE: taps(sd, MIDDLE)[0].shape[1:]}
    vectors = [steering.over_positions({MIDDLE: step}, shape, 1) for step in added]
    return Edit(MIDDLE, operator.add, source=vectors)


def noise_of(sd: "StableDiffusion", film: Film, steps: int) -> np.ndarray:
    """The noise, (1, h, w, 4), that a film's picture is walked back to by its own prompt, unguided.
    Raises UsageError where the run did not get to a picture."""
    if film.image is None:
        raise UsageError(f"{film.folder.name} has no picture to walk back from")
    context, uncond = np.split(sd.encode_text([film.facts["prompt"], ""]), 2)
    return ddim_invert(sd, context, sd.encode_image(film.image[None]), uncond, steps, 1.0)


MAKERS = {"weigh": weigh, "off": off, "head": head, "patch": patch, "direction": direction}


# --- as Python ---------------------------------------------------------------------------------


def python_of(ask: Ask, weights: str, places: Places, films: Mapping[str, Film]) -> str:
    """The lines that make this run."""
    lines = ["import xray", "from stable_diffusion_tf import StableDiffusion"]
    lines += ["from xray.lab.changes import noise_of, steered", ""]
    lines += [f"sd = StableDiffusion.load({weights!r})", "edits = []"]
    for change in ask.changes:
        lines += WRITERS[change.kind](ask, change, places, films)
    asked = {n: getattr(ask, n) for n in ("negative", "steps", "guidance", "eta", "seed")}
    said = keywords(asked)
    if ask.back:
        film = f"xray.Film.open({str(films[ask.back].folder)!r})"
        lines.append(f"latent = noise_of(sd, {film}, {ask.steps})")
        said += ", latent=latent"
    lines.append(f"image, cache = xray.run(sd, {ask.prompt!r}, edits=edits, {said})")
    return "\n".join(lines)


def loaded_as(sd: "StableDiffusion") -> str:
    """What `StableDiffusion.load` takes for this model: its name, or where it lies."""
    place = sd.checkpoint.place
    try:
        named = locate(place.name) == place
    except UsageError:
        named = False
    return place.name if named else str(place)


def keywords(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in told.items())


def write_patch(ask: Ask, change: Change, _: Places, films: Mapping[str, Film]) -> list[str]:
    prompt, told = asked_for(films[change.film])
    said = keywords({"read": change.address, "steps": ask.steps, **told})
    return [
        f"_, source = xray.run(sd, {prompt!r}, {said})",
        f"edits.append(xray.Edit({change.address!r}, source=source))",
    ]


def write_direction(ask: Ask, change: Change, *_: Any) -> list[str]:
    said = ", ".join(map(repr, (ask.prompt, change.old, change.new, change.factor)))
    how = keywords({name: getattr(ask, name) for name in ("steps", "guidance", "seed")})
    return [f"edits.append(steered(sd, {said}, {how}))"]


Writer = Callable[[Ask, Change, Places, Mapping[str, Film]], list[str]]
WRITERS: Mapping[str, Writer] = {
    "weigh": lambda _, c, *__: [
        f'edits.append(xray.Edit("{CROSS}", lambda p: p * {c.factor:g}, half="cond", '
        f"tokens={[*c.tokens]}))"
    ],
    "off": lambda _, c, places, __: [
        f"edits.append(xray.Edit({places.adds[c.address]}, lambda y: y * 0))"
    ],
    "head": lambda _, c, *__: [
        f'edits.append(xray.Edit("{c.address}", lambda p: p * 0, heads=[{c.head}]))'
    ],
    "patch": write_patch,
    "direction": write_direction,
}
