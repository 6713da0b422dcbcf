"""How does a phantom work inside? `python -m phantom.physiology` measures it, for any checkpoint of
the phantom's world, so that two can be held side by side.

Prompts name two things. What a picture shows is for the judge to say. Every figure is a mean over
prompts with its 95 % interval; the control is the pictures as they are, judged by the next prompt.
"""

import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import xray
from phantom import physiology_sheet
from phantom.judge import Findings, judge, stand_alike
from phantom.prompts import known_things
from phantom.train.contexts import ends_of
from phantom.world import (
    CORE,
    Scene,
    for_evaluation,
    masks,
    phrase,
    render,
    scenes,
    side_of,
    wording,
)
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from stable_diffusion_tf.tokenizer import EOS
from xray import attention, script
from xray.measure import Estimate, mean_of
from xray.measure import leakage as leakage_of
from xray.methods import steering
from xray.methods.ablation import find_ablations
from xray.methods.drawing import decode, draw
from xray.methods.token_spans import replace, split
from xray.report import save_picture

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

CROSS = "unet.*.attn2.probs"
SPANS = ("start", "words", "end", "padding")
PADDING = ("early padding", "late padding")
PATCHED = {  # what is put in → its spans
    "nothing": (),
    "words": ("words",),
    "end": ("end",),
    "padding": PADDING,
    "end and padding": ("end", *PADDING),
}
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)  # of the attention to a thing's word
CHANGES = (("rabbit", "car"), ("blue", "yellow"))  # words that a direction stands for
PROMPT, OTHER = "a rabbit on a blue background", "a rabbit above a car on a blue background"
MIDDLE = "unet.mid_block"
NEIGHBOURS = 2  # a prompt shares no thing with so many that follow it


class Row(NamedTuple):
    """A line of the sheet."""

    part: str
    case: str
    value: Estimate


class Patient(NamedTuple):
    """A model and what it is asked: n prompts of two things, of which a batch is drawn at once."""

    sd: "StableDiffusion"
    told: list[Scene]
    ids: np.ndarray  # (n, 77)
    contexts: np.ndarray  # (n, 77, width)
    noise: np.ndarray  # (n, h, w, 4)
    run: dict[str, Any]
    batch: int

    @property
    def spans(self) -> dict[str, np.ndarray]:
        """Token kind → which of the 77 it is in each prompt, (n, 77) bool."""
        place, end = np.arange(self.ids.shape[1]), ends_of(self.ids, EOS)[:, None]
        found = place < 1, (place > 0) & (place < end), place == end, place > end
        return dict(zip(SPANS, np.broadcast_arrays(*found), strict=True))


def main(
    weights: str = "phantom",
    prompts: int = 40,
    steps: int = 12,
    guidance: float = 4.0,
    seed: int = 0,
    batch: int = 10,
    out: Path = Path("outputs"),
) -> None:
    """Measure the physiology of a phantom.

    Args:
        weights: a model's name, or its folder or file.
        prompts: how many, a multiple of the batch.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated; 1 is not at all.
        seed: draws the scenes and the noise.
        batch: pictures drawn at once.
        out: the folder to save into.
    """
    sd = script.load_model(weights)
    patient = admit(sd, prompts, steps, guidance, seed, batch)
    folder = script.make_folder(out, "physiology", sd.checkpoint.place.name)
    rows = [row for examine in EXAMINATIONS for row in examine(patient)]
    report = {
        "settings": {"prompts": prompts, "steps": steps, "guidance": guidance, "seed": seed},
        "table": [{"part": r.part, "case": r.case, **r.value._asdict()} for r in rows],
    }
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    by_part = {part: {r.case: r.value for r in rows if r.part == part} for part, *_ in rows}
    title = f"{sd.checkpoint.place.name}: {prompts} prompts of two things, {steps} steps"
    save_picture(physiology_sheet.draw(by_part, title), folder / "sheet.png")
    for row in rows:
        print(f"{row.part:24}{row.case:44}{row.value}")
    print(f"sheet   {folder / 'sheet.png'}")


def admit(
    sd: "StableDiffusion", prompts: int, steps: int, guidance: float, seed: int, batch: int
) -> Patient:
    """Prompts about things that the model knows, none of which the next ones name."""
    some = scenes(seed, 3 * prompts, for_evaluation, 2, known_things(sd))
    told = unlike(some, prompts // batch * batch)
    words = [wording(scene) for scene in told]
    ids = sd.tokenize(words)
    run = {"uncond": sd.encode_text([""]), "steps": steps, "guidance": guidance}
    run |= {"progress": lambda rows: rows}
    noise = sd.draw_noise(seed, len(told))
    return Patient(sd, told, ids, sd.encode_text(words), noise, run, batch)


def unlike(some: Sequence[Scene], number: int) -> list[Scene]:
    """The first scenes of which none shares a thing with the NEIGHBOURS before it, the last ones
    being before the first."""
    kept: list[Scene] = []
    for scene in some:
        around = kept[-NEIGHBOURS:] + (
            kept[:NEIGHBOURS] if len(kept) >= number - NEIGHBOURS else []
        )
        if not names_of(scene) & {name for other in around for name in names_of(other)}:
            kept.append(scene)
        if len(kept) == number:
            return kept
    raise UsageError(f"too few scenes for {number} unlike ones; try fewer --prompts")


def names_of(scene: Scene) -> set[str]:
    return {thing.name for thing in scene.things}


# --- drawing and judging -----------------------------------------------------------------------


def drawn(
    patient: Patient,
    contexts: np.ndarray,
    sd: "StableDiffusion | None" = None,
    prepare: Callable[[slice], None] = lambda rows: None,
) -> list[Findings]:
    """What is seen in a picture of each context, all by one compiled function; `prepare` is told
    the rows of each batch."""
    seen, sd = [], sd or patient.sd
    for first in range(0, len(contexts), patient.batch):
        rows = slice(first, first + patient.batch)
        prepare(rows)
        latents = draw(sd, contexts[rows], patient.noise[rows], patient.run)
        seen += [judge(picture, things=CORE) for picture in to_uint8(decode(sd, latents))]
    return seen


def things_found(told: Sequence[Scene], seen: Sequence[Findings]) -> Estimate:
    """Which part of the things that prompts name their pictures show."""
    shown = [{match.thing.name for match in one.matches} for one in seen]
    found = [len(names_of(s) & names) / 2 for s, names in zip(told, shown, strict=True)]
    return mean_of(100 * np.array(found), "%")


def fed(patient: Patient, rule: Callable) -> "tuple[StableDiffusion, xray.Feed, dict[str, tuple]]":
    """A model whose cross-attention goes through rule(probs, what is fed), and where it is."""
    feed, places = xray.Feed(), {tap.address: tap.shape for tap in xray.taps(patient.sd, CROSS)}
    return xray.instrument(patient.sd, edits=xray.Edit([*places], rule, source=feed)), feed, places


def feed_rows(
    feed: "xray.Feed", places: Mapping[str, tuple], weights: np.ndarray, rows: slice
) -> None:
    """A weight for each token, (n, 77), at all places, in the prompts' half."""
    some = weights[rows]
    both = np.concatenate([np.ones_like(some), some]).astype(np.float32)[:, None, None]
    feed({at: np.broadcast_to(both, (len(both), *shape[1:])) for at, shape in places.items()})


def renormalised(probs: Any, weights: Any) -> Any:
    """Attention times weights, each query's sum kept."""
    from keras import ops

    kept = probs * weights
    return kept / (ops.sum(kept, axis=-1, keepdims=True) + 1e-9)


# --- examinations ------------------------------------------------------------------------------


def attention_shares(patient: Patient) -> Iterator[Row]:
    """Which part of cross-attention each kind of token gets, by layer."""
    seen = xray.instrument(patient.sd, xray.Probe(CROSS, xray.Mean(("head", "query"))))
    spans, some = patient.spans, slice(0, patient.batch)
    shots = []
    for _ in seen.denoise(patient.contexts[some], latent=patient.noise[some], **patient.run):
        shots.append({at: read[-patient.batch :] for at, read in seen.reads.items()})
    by_layer = {at: np.mean([shot[at] for shot in shots], axis=0) for at in shots[0]}  # (b, 77)
    for span in SPANS:
        own = spans[span][some]
        shares = {at: 100 * (value * own).sum(axis=1) for at, value in by_layer.items()}
        yield Row("attention", span, mean_of(np.mean([*shares.values()], axis=0), "%"))
        for at, share in shares.items():
            yield Row("attention by layer", f"{span}, {short(at)}", mean_of(share, "%"))


def short(address: str) -> str:
    """'up 0.1' of an address of the UNet's cross-attention."""
    side, *rest = address.removeprefix("unet.").partition(".transformer_blocks")[0].split(".")
    numbers = ".".join(n for n in rest if n.isdigit())
    return f"{side.partition('_')[0]} {numbers}"


def patching(patient: Patient) -> Iterator[Row]:
    """Vectors of the next prompt in place of a prompt's own: whose things are drawn?"""
    own = [split(*one) for one in zip(patient.contexts, patient.ids, strict=True)]
    pairs = [*zip(own, following(own), strict=True)]
    for name, spans in PATCHED.items():
        seen = drawn(patient, np.stack([replace(a, b, spans) for a, b in pairs]))
        yield Row("patched", f"{name}: its own things", things_found(patient.told, seen))
        theirs = things_found(following(patient.told), seen)
        yield Row("patched", f"{name}: the other prompt's", theirs)


def following(some: list) -> list:
    """For each the next one, after the last the first."""
    return some[1:] + some[:1]


def removal(patient: Patient) -> Iterator[Row]:
    """No attention to tokens of a kind, the rest getting what they got."""
    sd, feed, places = fed(patient, renormalised)
    for name in (None, "words", "end", "padding"):
        weights = np.ones(patient.ids.shape)
        if name:
            weights = np.where(patient.spans[name], 0.0, weights)
        seen = drawn(patient, patient.contexts, sd, partial(feed_rows, feed, places, weights))
        yield Row("attention removed", name or "to nothing", things_found(patient.told, seen))


def word_weights(patient: Patient) -> Iterator[Row]:
    """Attention to the first thing's word times a weight: is that thing drawn?"""
    sd, feed, places = fed(patient, operator.mul)
    first = np.array([word_of(patient, i) for i in range(len(patient.told))])
    for weight in WEIGHTS:
        weights = np.where(first, weight, 1.0)
        seen = drawn(patient, patient.contexts, sd, partial(feed_rows, feed, places, weights))
        names = [scene.things[0].name for scene in patient.told]
        hits = [
            name in {match.thing.name for match in one.matches}
            for name, one in zip(names, seen, strict=True)
        ]
        yield Row("weight of a word", f"× {weight:g}", mean_of(100 * np.array(hits, float), "%"))


def word_of(patient: Patient, row: int) -> np.ndarray:
    """Where the name of a prompt's first thing stands, (77,) bool."""
    scene = patient.told[row]
    words = attention.phrases(patient.sd.tokenizer.words(wording(scene)), [scene.things[0].name])
    places = next(at for word, at in words if word == scene.things[0].name)
    return np.isin(np.arange(patient.ids.shape[1]), places)


def leakage(patient: Patient) -> Iterator[Row]:
    """Heat maps of the things' words in real scenes: how much of what lies on the two things lies
    on the wrong one, both counted by the area that they take."""
    found = []
    for first in range(0, len(patient.told), patient.batch):
        some = patient.told[first : first + patient.batch]
        captions = [wording(scene) for scene in some]
        shots = attention.look(patient.sd, np.stack([render(s) for s in some]), captions)
        for i, (scene, caption) in enumerate(zip(some, captions, strict=True)):
            names, known = [thing.name for thing in scene.things], masks(scene)
            words = attention.phrases(patient.sd.tokenizer.words(caption), names)
            maps = attention.word_maps(shots, words, grid=(64, 64), picture=i)
            pairs = (names, names[::-1])
            found.append(np.mean([leakage_of(maps[a], known[a], known[b]) for a, b in pairs]))
    yield Row("leakage", "of a word's map on the other thing", mean_of(np.array(found)))


def ablation(patient: Patient) -> Iterator[Row]:
    """All that a level's blocks add set to zero, and each skip."""
    places, one_by_one = find_ablations(patient.sd)
    whole: dict[str, list[str]] = {}
    for one in one_by_one:
        if one.head is None:
            level = "middle" if one.place.startswith("mid") else one.place.partition(".")[0]
            name = f"skip {one.place}" if one.kind == "skip" else level
            whole.setdefault(name, []).append(one.address)
    feed, shapes = xray.Feed(), {tap.address: tap.shape for tap in places}
    used = {at: shapes[at] for group in whole.values() for at in group}
    sd = xray.instrument(patient.sd, edits=xray.Edit([*used], operator.mul, source=feed))

    def prepare(zero: Sequence[str], rows: slice) -> None:
        for_both = 2 * patient.batch
        feed(
            {
                at: np.full((for_both, *shape[1:]), at not in zero, np.float32)
                for at, shape in used.items()
            }
        )

    plain = drawn(patient, patient.contexts, sd, partial(prepare, ()))
    before = things_found(patient.told, plain)
    yield Row("ablated", "nothing", before)
    for name, zero in whole.items():
        seen = drawn(patient, patient.contexts, sd, partial(prepare, zero))
        yield Row("ablated", name, things_found(patient.told, seen))


def layout(patient: Patient) -> Iterator[Row]:
    """The prompt gives way, at a step, to one that has the two things change places: where both are
    drawn, do they stand as the first said?"""
    swapped = [
        f"{phrase(b)} {side_of(a, b)} {phrase(a)} on a {scene.background} background"
        for scene in patient.told
        for a, b in [scene.things]
    ]
    own, turned = patient.contexts, patient.sd.encode_text(swapped)
    steps = patient.run["steps"]
    for turn in sorted({min(turn, steps) for turn in (0, 1, 2, 3, 4, steps // 2, steps)}):
        seen = []
        for first in range(0, len(own), patient.batch):
            rows = slice(first, first + patient.batch)
            x = walk(patient, own[rows], patient.noise[rows], 0, turn)
            x = walk(patient, turned[rows], x, turn, steps)
            seen += [judge(p, things=CORE) for p in to_uint8(decode(patient.sd, x))]
        shown = [{m.thing.name: m.thing for m in one.matches} for one in seen]
        both = [
            stand_alike(scene, found)
            for scene, found in zip(patient.told, shown, strict=True)
            if found.keys() == names_of(scene)
        ]
        if both:
            told = mean_of(100 * np.array(both, float), "%")
            yield Row("stands as first told", f"{turn} of {steps} steps", told)


def walk(
    patient: Patient, contexts: np.ndarray, x: np.ndarray, first: int, last: int
) -> np.ndarray:
    """Latents after step `last`, from where step `first` begins."""
    if first < last:
        for step in patient.sd.denoise(contexts, latent=x, start=first, **patient.run):
            if step.index + 1 == last:
                return step.x_prev
    return x


def direction(patient: Patient) -> Iterator[Row]:
    """The mean difference that a word makes in the middle, added: how much of the word's way?"""
    sd, noise = patient.sd, patient.sd.draw_noise(1, 3 * patient.batch)
    shape = {MIDDLE: next(tap.shape[1:] for tap in xray.taps(sd, MIDDLE))}
    for old, new in CHANGES:
        prompts = [PROMPT, OTHER]
        prompts += [prompt.replace(old, new) for prompt in prompts]
        contexts = sd.encode_text(prompts)
        made = steering.steer_all(sd, contexts, noise, shape, MIDDLE, [1.0], patient.run)
        start, goal = np.split(made.plain[[0, 1, 0, 1, 2, 3, 2, 3]], 2)
        shares = 100 * steering.share_of_way(made.latents, start, goal)[0]  # (4, pictures)
        for case, share in zip(("", ", other prompt", ", shuffled"), shares, strict=False):
            yield Row("direction", f"{old} → {new}{case}", mean_of(share, "%"))


EXAMINATIONS = (
    attention_shares,
    patching,
    removal,
    word_weights,
    leakage,
    ablation,
    layout,
    direction,
)


if __name__ == "__main__":
    script.run(main)
