"""How true are the heat maps of words? `python -m phantom.score_attention --scenes 200`.

Every word that names a thing or the background has a known mask. First the model looks at held-out
scenes: each is noised to several timesteps and denoised once with its own caption. Then it draws
pictures of its own from held-out prompts; there a word's mask is where the picture leaves its
background, around the sprite that the judge finds. A map is scored by its IoU with the mask where
it exceeds one fixed share of its range, the same for all words of a kind, and by whether its
largest cell lies in the mask (the pointing game).

Beside our pooling and DAAM's stand four baselines: where the start token gets least, which is the
same map for every word; the map of another word of the prompt, and of a word of another prompt; and
a box of the mean size in the middle. The map of every word of a scene that holds one thing finds
that thing: it is where there are two that a map must know its word. Intervals are over pictures.
Both the pooling and the shares are chosen on other scenes (seed + 1) than they are scored on.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from phantom.evaluate import draw_scenes, wording
from phantom.judge import NEAR, judge
from phantom.world import BACKGROUNDS, FAMILY, SIDE, Scene, masks, render
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from stable_diffusion_tf.progress import progress_bar
from xray import measure, plots, script
from xray.attention import (
    DAAM,
    DEFAULT,
    INSIDE,
    Pooling,
    Words,
    look,
    phrases,
    probe,
    word_maps,
)
from xray.attention.attention import copied
from xray.attention.pooling import AGAINST, CROSS, JOINS, NORMS, OUTER, RESIZES, STEPS, WEIGHTS
from xray.measure import Estimate
from xray.plain_figure import PlainFigure
from xray.report import as_data, save_picture

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.probe.instrumented import Instrument
    from xray.probe.interventions import Reads

GRID = (SIDE, SIDE)
PICTURES = {"scenes": "scenes, noised and denoised once", "drawn": "pictures that the model drew"}
SHARES = np.arange(0.05, 1, 0.05)  # of a map's range, from which on it counts as inside
GROUPS = {  # of words → kinds of words in it
    "things": ("alone", "of two"),
    "of two": ("of two",),
    "background": ("background",),
}
TOGETHER = [*product(AGAINST, NORMS, WEIGHTS)]  # each changes what the others are worth
CHOICES = {  # field of the pooling → what the search tries, one field after the other
    "layers": (OUTER, CROSS, "unet.up_blocks.*.attn2.probs", "unet.down_blocks.*.attn2.probs"),
    "steps": tuple(STEPS),
    "join": tuple(JOINS),
    "resize": tuple(RESIZES),
}
START, SAME = "start token, for every word", "another word of its prompt"
OTHER, BOX = "a word of another prompt", "box in the middle"
OWN, BLIND = "IoU, own map", "IoU, start token's map"
ORDER = ("ours", "DAAM", START, SAME, OTHER, BOX)


class Sight(NamedTuple):
    """What was read of one picture and its prompt, and the mask of each word that has one."""

    shots: "list[Reads]"
    picture: int  # which of the batch
    words: Words
    masks: Mapping[str, np.ndarray]  # phrase → (64, 64) bool


class Maps(NamedTuple):
    """Words, and what each method makes of them."""

    pictures: np.ndarray  # (n,): which picture each belongs to
    kinds: np.ndarray  # (n,): alone, of two or background
    masks: np.ndarray  # (n, 64, 64) bool
    heats: dict[str, np.ndarray]  # method → (n, 64, 64)


@dataclass(frozen=True)
class Row:
    """How well one method finds the words of one group, of which there are `number`."""

    pictures: str
    group: str
    method: str
    number: int
    share: float
    iou: Estimate
    best_iou: Estimate
    pointing: Estimate


def main(
    scenes: int = 200,
    tuning: int = 60,
    steps: int = 12,
    guidance: float = 4.0,
    seed: int = 0,
    batch: int = 10,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Score the heat maps of words against exact masks.

    Args:
        scenes: how many to look at, and how many pictures to draw.
        tuning: how many others to choose the pooling on.
        steps: from noise to a drawn picture.
        guidance: how far the words' share is exaggerated in a drawn picture.
        seed: draws scenes and noise; seed + 1 draws those to choose on.
        batch: pictures at once; another number gives other noise.
        weights: a phantom's name, or its folder.
        out: the folder to save into.
    """
    if min(scenes, tuning, batch) < 1:
        raise UsageError("scenes, tuning and batch are 1 or more; try --scenes 200")
    sd = script.load_model(weights)
    if sd.size != SIDE:
        raise UsageError(f"these weights draw {sd.size} pixels, and the phantom's world has {SIDE}")
    folder = script.make_folder(out, "score_attention", sd.checkpoint.place.name)
    from xray.probe.instrumented import instrument

    sd = instrument(sd, probe())
    with script.saving_into(folder):
        known = [*looked(sd, draw_scenes(seed + 1, tuning), batch, seed + 1)]
        chosen, tried = search(known)
        poolings = {"DAAM": DAAM, "ours": DEFAULT}
        shares = best_shares(pool(known, poolings))
        seen = pool(looked(sd, draw_scenes(seed, scenes), batch, seed), poolings)
        drawing = drawn(sd, draw_scenes(seed, scenes), batch, seed, steps, guidance)
        made = pool(drawing, poolings)
        rows = [*rate("scenes", seen, shares), *rate("drawn", made, shares)]
        save(folder, rows, chosen, tried)
    print("\n".join(table(rows)))
    print(f"chosen on {tuning} other scenes: {not_daam(chosen)}")
    print(f"report  {folder / 'report.json'}\npicture {folder / 'score.png'}")
    check(rows)


# --- pictures and what is read of them ---------------------------------------------------------


def looked(sd: "Instrument", told: Sequence[Scene], batch: int, seed: int) -> Iterator[Sight]:
    """Scenes, noised to several timesteps and denoised once with their own captions."""
    for i in counted(len(told), batch, "looking"):
        some = told[i : i + batch]
        images = np.stack([render(scene) for scene in some])
        captions = [scene.caption for scene in some]
        shots = look(sd, images, captions, seed=seed + i)
        for j, scene in enumerate(some):
            yield sight(sd, shots, j, scene.caption, masks(scene))


def drawn(
    sd: "Instrument",
    told: Sequence[Scene],
    batch: int,
    seed: int,
    steps: int,
    guidance: float,
) -> Iterator[Sight]:
    """Pictures that the model draws from the words of scenes."""
    for i in counted(len(told), batch, "drawing"):
        prompts = [wording(scene) for scene in told[i : i + batch]]
        context = sd.encode_text([*prompts, ""])
        run = sd.denoise(context[:-1], context[-1:], steps, guidance, seed=seed + i, progress=list)
        shots = []
        for step in run:
            shots.append(copied(sd.reads))
            latent = step.x_prev
        pictures = to_uint8(sd.decode_latent(latent))
        for j, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
            yield sight(sd, shots, j, prompt, masks_in(picture))


def counted(number: int, batch: int, what: str) -> Iterable[int]:
    return progress_bar(range(0, number, batch), what, "batch")


def masks_in(picture: np.ndarray) -> dict[str, np.ndarray]:
    """Word → (64, 64) bool, of the things and the background that the judge finds in a picture,
    (64, 64, 3) uint8: where it leaves its background, split by the squares of the sprites."""
    found = judge(picture)
    far = np.linalg.norm(picture.astype(float) - found.colour, axis=-1) / 255 > NEAR
    made, taken = {}, np.zeros((SIDE, SIDE), bool)
    for thing in (match.thing for match in found.matches):
        square = np.zeros((SIDE, SIDE), bool)
        top, left = max(thing.row, 0), max(thing.column, 0)  # it may stand over the edge
        square[top : thing.row + thing.side, left : thing.column + thing.side] = True
        made[thing.name] = square & far & ~taken
        taken |= square
    return made | {found.background: ~far}


def sight(
    sd: "StableDiffusion",
    shots: "list[Reads]",
    picture: int,
    prompt: str,
    known: Mapping[str, np.ndarray],
) -> Sight:
    """With the masks of the words that the prompt says; it may name a thing by its family."""
    words = phrases(sd.tokenizer.words(prompt), [*known])
    spoken = {word for word, _ in words}
    names = {name: name if name in spoken else FAMILY.get(name) for name in known}
    found = {names[name]: mask for name, mask in known.items() if names[name] in spoken}
    return Sight(shots, picture, words, found)


# --- maps and their scores ---------------------------------------------------------------------


def pool(sights: Iterable[Sight], poolings: Mapping[str, Pooling]) -> Maps:
    """The maps of the words that have a mask, by each pooling and by each baseline; one pooling is
    called 'ours'."""
    pictures, kinds, known = [], [], []
    heats = {method: [] for method in [*poolings, START, SAME]}
    for index, one in enumerate(sights):
        found = {method: heat_maps(one, pooling) for method, pooling in poolings.items()}
        start = -heat_maps(one, DAAM)["<start>"]
        for word, mask in one.masks.items():
            pictures.append(index)
            kinds.append(kind_of(word, one.masks))
            known.append(mask)
            for method, maps in found.items():
                heats[method].append(maps[word])
            heats[START].append(start)
            heats[SAME].append(found["ours"][another(word, one)])
    arrays = {method: np.array(maps) for method, maps in heats.items()}
    pooled = Maps(np.array(pictures), np.array(kinds), np.array(known), arrays)
    return pooled._replace(heats=pooled.heats | baselines(pooled))


def another(word: str, one: Sight) -> str:
    """The other thing of the prompt; where it names one thing, its background; where that is all
    that has a mask, its first word."""
    others = [other for other in one.masks if other != word]
    return min(others, key=BACKGROUNDS.__contains__) if others else one.words[0][0]


def kind_of(word: str, known: Mapping[str, np.ndarray]) -> str:
    things = [other for other in known if other not in BACKGROUNDS]
    return "background" if word not in things else "alone" if len(things) == 1 else "of two"


def heat_maps(one: Sight, pooling: Pooling) -> dict[str, np.ndarray]:
    return word_maps(one.shots, one.words, pooling, GRID, picture=one.picture)


def baselines(pooled: Maps) -> dict[str, np.ndarray]:
    """A box, and our maps each given to a word of its kind half the set away."""
    shuffled = np.empty_like(pooled.heats["ours"])
    boxes = np.empty_like(shuffled)
    for group in ("things", "background"):
        own = np.flatnonzero(np.isin(pooled.kinds, GROUPS[group]))
        shuffled[own] = pooled.heats["ours"][np.roll(own, len(own) // 2)]
        boxes[own] = centred_box(pooled.masks[own].mean() if len(own) else 0)
    return {OTHER: shuffled, BOX: boxes}


def centred_box(part: float) -> np.ndarray:
    """A square in the middle that takes this part of the picture, (64, 64), 0 or 1."""
    away = np.abs(np.arange(SIDE) + 0.5 - SIDE / 2)
    inside = away <= np.sqrt(part) * SIDE / 2
    return np.outer(inside, inside).astype(float)


def best_shares(pooled: Maps) -> dict[tuple[str, str], float]:
    """(group, method) → the share of the range at which the mean IoU is best."""
    found = {}
    for group, kinds in GROUPS.items():
        own = np.isin(pooled.kinds, kinds)
        for method, heats in pooled.heats.items():
            scores = [measure.iou_at(heats[own], pooled.masks[own], s).mean() for s in SHARES]
            found[group, method] = float(SHARES[np.argmax(scores)])
    return found


def rate(pictures: str, pooled: Maps, shares: Mapping[tuple[str, str], float]) -> Iterator[Row]:
    for group, kinds in GROUPS.items():
        own = np.isin(pooled.kinds, kinds)
        for method in ORDER:
            heat, mask, share = pooled.heats[method][own], pooled.masks[own], shares[group, method]
            numbers = (
                measure.iou_at(heat, mask, share),
                measure.best_iou(heat, mask)[0],
                measure.pointing(heat, mask),
            )
            means = (measure.mean_of(n, cases=pooled.pictures[own]) for n in numbers)
            yield Row(pictures, group, method, int(own.sum()), share, *means)


def search(sights: Sequence[Sight]) -> tuple[Pooling, dict[Pooling, float]]:
    """The pooling that scores best on things: DAAM's, with the best of what must be chosen together
    and then field by field, twice; and all that were tried with their scores."""
    tried: dict[Pooling, float] = {}

    def score(pooling: Pooling) -> float:
        if pooling not in tried:
            tried[pooling] = on_things(sights, pooling)
        return tried[pooling]

    best = DAAM
    for _ in range(2):
        some = [replace(best, against=a, norm=n, weight=w) for a, n, w in TOGETHER]
        best = max(some, key=score)
        for field, values in CHOICES.items():
            best = max((replace(best, **{field: value}) for value in values), key=score)
    return best, tried


def on_things(sights: Sequence[Sight], pooling: Pooling) -> float:
    """Mean IoU over the things, at the one share that suits them best."""
    heats, known = [], []
    for one in sights:
        maps = heat_maps(one, pooling)
        for word, mask in one.masks.items():
            if word not in BACKGROUNDS:
                heats.append(maps[word])
                known.append(mask)
    heats, known = np.array(heats), np.array(known)
    return max(float(measure.iou_at(heats, known, share).mean()) for share in SHARES)


def iou_of_things(
    found: Sequence[Mapping[str, np.ndarray]], known: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, tuple[np.ndarray, str, np.ndarray]]:
    """The IoU of things' masks with their own maps, and with where the start token gets least,
    which is the same for every word: (things,), no unit, and which picture each is of, as `mean_of`
    takes them; {} where no word has a mask. found, known: of each picture, word → map, mask."""
    rows = [
        (
            measure.iou_at(maps[word], mask, INSIDE),
            measure.iou_at(-maps["<start>"], mask, INSIDE),
            i,
        )
        for i, (maps, masks) in enumerate(zip(found, known, strict=True))
        for word, mask in masks.items()
        if word in maps and word not in BACKGROUNDS
    ]
    if not rows:
        return {}
    own, blind, pictures = (np.array(column) for column in zip(*rows, strict=True))
    return {OWN: (own, "", pictures), BLIND: (blind, "", pictures)}


# --- what is told ------------------------------------------------------------------------------


def not_daam(pooling: Pooling) -> str:
    """Where a pooling is not DAAM's."""
    other = [f for f in asdict(DAAM) if getattr(pooling, f) != getattr(DAAM, f)]
    return ", ".join(f"{f}={getattr(pooling, f)!r}" for f in other) or "DAAM's own"


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield f"{'':48}{'words':>6}{'share':>7}{'IoU':>22}{'best IoU':>22}{'pointing':>22}"
    for row in rows:
        scores = "".join(f"{score!s:>22}" for score in (row.iou, row.best_iou, row.pointing))
        yield f"{row.pictures:8}{row.group:12}{row.method:28}{row.number:6}{row.share:7.2f}{scores}"


def save(folder: Path, rows: Sequence[Row], chosen: Pooling, tried: Mapping[Pooling, float]):
    ranked = sorted(tried.items(), key=lambda pair: -pair[1])
    report = {
        "table": [{n: as_data(value) for n, value in vars(row).items()} for row in rows],
        "default": asdict(DEFAULT),
        "chosen": asdict(chosen),
        "tried": [{"iou": round(score, 4), **asdict(pooling)} for pooling, score in ranked],
    }
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    of_two = [row for row in rows if row.group == "of two"]
    scores = {
        pictures: {row.method: row.iou for row in of_two if row.pictures == pictures}
        for pictures in dict.fromkeys(row.pictures for row in of_two)
    }
    ours, start, daam = (scores["scenes"][method] for method in ("ours", START, "DAAM"))
    title = (
        f"Of two things our maps find the word's with {ours} IoU, the start token's map "
        f"{start.short}, DAAM's {daam.short}"
    )
    save_picture(draw(scores, title), folder / "score.png")


def draw(scores: Mapping[str, Mapping[str, Estimate]], title: str) -> Figure:
    """A panel for each kind of pictures: method → IoU."""
    figure = PlainFigure(figsize=(12, 3.8), layout="constrained")
    for axes, (pictures, found) in zip(
        figure.subplots(1, len(scores), sharey=True), scores.items(), strict=True
    ):
        plots.bars_with_intervals(axes, [*found], [*found.values()])
        axes.set_title(PICTURES[pictures], fontsize=10)
        axes.set_xlabel("mean IoU with the exact mask, two things")
    plots.head_line(figure, title)
    return figure


def check(rows: Sequence[Row]) -> None:
    """Stop where a map says no more of things than the map of another word, or than a box."""
    for pictures in dict.fromkeys(row.pictures for row in rows):
        score = {r.method: r.iou for r in rows if (r.pictures, r.group) == (pictures, "things")}
        if not score["ours"].low > max(score[OTHER].high, score[BOX].high):
            raise SystemExit(f"the control failed ({pictures}): our maps find no more than chance")


if __name__ == "__main__":
    script.run(main)
