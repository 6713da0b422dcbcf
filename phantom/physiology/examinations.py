"""What is measured of a patient: each examination yields the rows of its part of the sheet."""

import operator
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

import xray
from phantom.physiology.patient import (
    CROSS,
    SPANS,
    Patient,
    Row,
    backgrounds_found,
    drawn,
    fed,
    feed_rows,
    following,
    judged,
    renormalised,
    sides_found,
    things_found,
    ways,
)
from phantom.world import SIDE, masks, phrase, render, side_of, wording
from xray import attention
from xray.measure import leakage as leakage_of
from xray.measure import mean_of
from xray.methods import steering
from xray.methods.ablation import find_ablations
from xray.methods.token_spans import replace, split

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
    """Vectors of the next prompt in place of a prompt's own: whose things are drawn, and how far
    does the run go from its own end to where the same noise goes with the next prompt?"""
    own = [split(*one) for one in zip(patient.contexts, patient.ids, strict=True)]
    pairs = [*zip(own, following(own), strict=True)]
    start = patient.plain.latents
    goal = drawn(patient, np.stack(following(patient.contexts))).latents
    for name, spans in PATCHED.items():
        made = drawn(patient, np.stack([replace(a, b, spans) for a, b in pairs]))
        if made.seen is not None:
            yield Row("patched", f"{name}: its own things", things_found(patient.told, made.seen))
            theirs = things_found(following(patient.told), made.seen)
            yield Row("patched", f"{name}: the other prompt's", theirs)
        share = 100 * steering.share_of_way(made.latents, start, goal)
        yield Row("patched, way to the other", name, mean_of(share, "%"))


def removal(patient: Patient) -> Iterator[Row]:
    """No attention to tokens of a kind, the rest getting what they got."""
    sd, feed, places = fed(patient, renormalised)
    for name in (None, "words", "end", "padding"):
        weights = np.ones(patient.ids.shape)
        if name:
            weights = np.where(patient.spans[name], 0.0, weights)
        made = drawn(patient, patient.contexts, sd, partial(feed_rows, feed, places, weights))
        yield from ways("attention removed", name or "to nothing", patient, made)


def word_weights(patient: Patient) -> Iterator[Row]:
    """Attention to the first thing's word times a weight: is that thing drawn?"""
    sd, feed, places = fed(patient, operator.mul)
    first = np.array([word_of(patient, i) for i in range(len(patient.told))])
    names = [scene.things[0].name for scene in patient.told]
    for weight in WEIGHTS:
        weights = np.where(first, weight, 1.0)
        made = drawn(patient, patient.contexts, sd, partial(feed_rows, feed, places, weights))
        *things, far = ways("weight of a word", f"× {weight:g}", patient, made)
        if things:
            hits = [
                name in {match.thing.name for match in one.matches}
                for name, one in zip(names, made.seen, strict=True)
            ]
            yield things[0]._replace(value=mean_of(100 * np.array(hits, float), "%"))
        yield far


def word_of(patient: Patient, row: int) -> np.ndarray:
    """Where the name of a prompt's first thing stands, (77,) bool."""
    scene = patient.told[row]
    words = attention.phrases(patient.sd.tokenizer.words(wording(scene)), [scene.things[0].name])
    places = next(at for word, at in words if word == scene.things[0].name)
    return np.isin(np.arange(patient.ids.shape[1]), places)


def leakage(patient: Patient) -> Iterator[Row]:
    """Heat maps of the things' words in real scenes: how much of what lies on the two things lies
    on the wrong one, both counted by the area that they take."""
    found, times = [], patient.sd.size // SIDE
    for first in range(0, len(patient.told), patient.batch):
        some = patient.told[first : first + patient.batch]
        captions = [wording(scene) for scene in some]
        images = np.stack([render(scene) for scene in some]).repeat(times, 1).repeat(times, 2)
        shots = attention.look(patient.sd, images, captions)
        for i, (scene, caption) in enumerate(zip(some, captions, strict=True)):
            names, known = [thing.name for thing in scene.things], masks(scene)
            words = attention.phrases(patient.sd.tokenizer.words(caption), names)
            maps = attention.word_maps(shots, words, grid=(SIDE, SIDE), picture=i)
            pairs = (names, names[::-1])
            found.append(np.mean([leakage_of(maps[a], known[a], known[b]) for a, b in pairs]))
    yield Row("leakage", "of a word's map on the other thing", mean_of(np.array(found)))


def ablation(patient: Patient) -> Iterator[Row]:
    """All that a level's blocks add set to zero, and each skip: things, background and side."""
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

    for name, zero in {"nothing": [], **whole}.items():
        made = drawn(patient, patient.contexts, sd, partial(prepare, zero))
        yield from ways("ablated", name, patient, made)
        if made.seen is not None:
            yield Row("ablated, background", name, backgrounds_found(patient.told, made.seen))
            if side := sides_found(patient.told, made.seen):
                yield Row("ablated, side", name, side)


def layout(patient: Patient) -> Iterator[Row]:
    """The prompt gives way, at a step, to one that has the two things change places: where both are
    drawn, do they stand as the first said?"""
    if not patient.judged:
        return
    swapped = [
        f"{phrase(b)} {side_of(a, b)} {phrase(a)} on a {scene.background} background"
        for scene in patient.told
        for a, b in [scene.things]
    ]
    own, turned = patient.contexts, patient.sd.encode_text(swapped)
    steps = patient.run["steps"]
    for turn in sorted({min(turn, steps) for turn in (0, 1, 2, 3, 4, steps // 2, steps)}):
        ended = []
        for first in range(0, len(own), patient.batch):
            rows = slice(first, first + patient.batch)
            x = walk(patient, own[rows], patient.noise[rows], 0, turn)
            ended.append(walk(patient, turned[rows], x, turn, steps))
        if stands := sides_found(patient.told, judged(patient, np.concatenate(ended))):
            yield Row("stands as first told", f"{turn} of {steps} steps", stands)


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
