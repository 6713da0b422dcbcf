"""How true are the maps of words? `python -m phantom.attribution`.

Every method of `methods/` says of each word of a prompt where in the picture it is; every word of
the phantom's world has a known mask. First the model looks at held-out scenes of two things, each
noised; then it draws pictures of its own. Beside the methods stand maps that know nothing of their
word, models that know nothing, and the mask itself, as coarse as attention is. Shares of a map's
range, heads and boxes are chosen on other scenes (seed + 1) than those that are scored; intervals
are over pictures.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phantom.prompts import check_size
from phantom.world import BACKGROUNDS, SIDE
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.progress import progress_bar
from xray import script
from xray.report import as_data, save_picture, write_json

from . import figure, sanity
from .examples import Example, drawn, looked_at, told
from .heads import chosen_heads
from .methods import METHODS, Method
from .methods.grids import enlarged
from .rating import SCORES, Row, Word, best_share, rate

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

SHUFFLED = "a word of another prompt"
GROUPS = {"things": True, "background": False}  # whether the words of the group are things
Source = Callable[["StableDiffusion", Sequence, int, int], Iterator[Example]]
SOURCES: dict[str, Source] = {"scenes": looked_at, "drawn": drawn}


@dataclass(frozen=True)
class Settings:
    """How much is looked at: scenes and as many drawn pictures, and others to choose on."""

    scenes: int = 100
    tuning: int = 40
    steps: int = 12
    seed: int = 0

    def check(self) -> None:
        if min(self.scenes, self.tuning) < 2 or self.steps < 1:
            raise UsageError("scenes and tuning are 2 or more, steps 1 or more; try --scenes 100")


def main(
    weights: tuple[str, ...] = ("phantom",),
    scenes: int = 100,
    tuning: int = 40,
    steps: int = 12,
    seed: int = 0,
    out: Path = Path("outputs"),
) -> None:
    """Score maps of words by many methods against exact masks.

    Args:
        weights: phantoms, by name or folder, each with a table of its own.
        scenes: how many to look at, and how many pictures to draw.
        tuning: how many others to choose shares and heads on.
        steps: from noise to a drawn picture.
        seed: draws scenes and noise; seed + 1 draws those to choose on.
        out: the folder to save into.
    """
    settings = Settings(scenes, tuning, steps, seed)
    settings.check()
    models = {name: load(name) for name in weights}
    folder = script.make_folder(out, "attribution", "-".join(models))
    tables: dict[str, dict[str, dict[str, list[Row]]]] = {}
    with script.saving_into(folder):
        for name, sd in models.items():
            tables[name] = all_rows(sd, settings)
            save(folder, tables, settings)
            print("\n".join(table(name, tables[name])))
        save_picture(
            figure.draw({n: t["scenes"]["things"] for n, t in tables.items()}),
            folder / "attribution.png",
        )
    print(f"report  {folder / 'report.json'}\npicture {folder / 'attribution.png'}")
    for name, found in tables.items():
        check(name, found["scenes"]["things"])


def score(
    method: Method, weights: str = "phantom", scenes: int = 100, tuning: int = 40, seed: int = 0
) -> Row:
    """How true a method's maps of things are, in held-out scenes of two.

    method: a function of a `Case` that gives word → map, (rows, columns), of any size, large where
        the word is; for every word of `case.words`.
    weights: a phantom's name or folder. The rest is as in `python -m phantom.attribution`.
    Raises UsageError for a method that gives other maps.
    """
    settings, sd = Settings(scenes, tuning, seed=seed), load(weights)
    settings.check()
    words = {
        part: seen(examples(sd, "scenes", settings, part), {"it": method})
        for part in ("tuning", "scored")
    }
    known, new = ([word for word in words[part] if word.is_thing] for part in words)
    row = rate(new, "it", best_share(known, "it"))
    return row._replace(method=getattr(method, "__name__", "a method"))


def load(weights: str) -> "StableDiffusion":
    sd = script.load_model(weights)
    check_size(sd)
    return sd


# --- words and what methods make of them -------------------------------------------------------


def all_rows(sd: "StableDiffusion", settings: Settings) -> dict[str, dict[str, list[Row]]]:
    """Kind of pictures → group of words → the rows of all methods."""
    known = [*examples(sd, "scenes", settings, "tuning")]
    methods = METHODS | {
        "learned heads": chosen_heads(known),
        "start token, for every word": sanity.start_token,
        "another word of its prompt": sanity.another_word,
        "a box in the middle": sanity.centred_box(known),
        **sanity.on_randomised(sd),
    }
    tuned = with_derived(seen(known, methods))
    shares = {(g, m): best_share(of_group(tuned, g), m) for g in GROUPS for m in tuned[0].maps}
    found = {}
    for kind in SOURCES:
        words = with_derived(seen(examples(sd, kind, settings, "scored"), methods))
        found[kind] = {
            group: [rate(of_group(words, group), m, shares[group, m]) for m in words[0].maps]
            for group in GROUPS
        }
    return found


def examples(sd: "StableDiffusion", kind: str, settings: Settings, part: str) -> Iterator[Example]:
    seed = settings.seed + (part == "tuning")
    some = told(sd, settings.tuning if part == "tuning" else settings.scenes, seed)
    bar = progress_bar(range(len(some)), f"{kind}, {part}", "picture")
    return (one for one, _ in zip(SOURCES[kind](sd, some, seed, settings.steps), bar, strict=False))


def seen(some: Iterable[Example], methods: Mapping[str, Method]) -> list[Word]:
    """The words of examples, each with its map by every method."""
    words = []
    for picture, one in enumerate(some):
        maps = {name: checked(method(one.case), one, name) for name, method in methods.items()}
        maps |= {
            name: on_grid(sanity.ceiling(side)(one.masks)) for name, side in sanity.CEILINGS.items()
        }
        for word, mask in one.masks.items():
            others = [name for name in one.things if name != word]
            is_thing = word not in BACKGROUNDS
            other = one.masks[others[0]] if is_thing and others else None
            loss = one.losses and one.losses[word]
            own = {name: found[word] for name, found in maps.items()}
            words.append(Word(picture, is_thing, mask, other, loss, own))
        one.case.seen.clear()
    return words


def checked(found: Mapping[str, np.ndarray], one: Example, name: str) -> dict[str, np.ndarray]:
    """A method's maps on the grid of the picture. Raises UsageError where one is missing, or is no
    map."""
    for word in one.masks:
        heat = np.asarray(found.get(word, 0.0))
        if heat.ndim != 2 or not np.isfinite(heat).all():
            raise UsageError(
                f"{name}: a method gives a map (rows, columns) of finite numbers for each word, "
                f"and for {word!r} it gave {heat.dtype} {heat.shape}"
            )
    return on_grid({word: np.asarray(found[word], float) for word in one.masks})


def on_grid(maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {word: enlarged(heat, SIDE).astype(np.float32) for word, heat in maps.items()}


def with_derived(words: list[Word]) -> list[Word]:
    """With our maps each given to a word of its group half the set away."""
    turned = {}
    for is_thing in GROUPS.values():
        own = [i for i, word in enumerate(words) if word.is_thing == is_thing]
        turned |= dict(zip(own, np.roll(own, len(own) // 2), strict=True))
    return [
        word._replace(maps=ordered(word.maps | {SHUFFLED: words[turned[i]].maps["ours"]}))
        for i, word in enumerate(words)
    ]


def ordered(maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mask itself last."""
    return dict(sorted(maps.items(), key=lambda pair: pair[0] in sanity.CEILINGS))


def of_group(words: list[Word], group: str) -> list[Word]:
    return [word for word in words if word.is_thing == GROUPS[group]]


# --- what is told ------------------------------------------------------------------------------


def table(name: str, found: Mapping[str, Mapping[str, list[Row]]]) -> Iterator[str]:
    """The rows of things, of both kinds of pictures."""
    yield f"{name:41}" + "".join(f"{score:>20}" for score in SCORES)
    for kind, groups in found.items():
        for row in groups["things"]:
            cells = (getattr(row, score) for score in SCORES)
            told = "".join(f"{'' if cell is None else cell!s:>20}" for cell in cells)
            yield f"{kind:7}{row.method:34}{told}"


def save(folder: Path, tables: Mapping, settings: Settings) -> None:
    report = {
        "settings": vars(settings),
        "tables": {
            name: {
                kind: {g: [row_as_data(row) for row in rows] for g, rows in groups.items()}
                for kind, groups in found.items()
            }
            for name, found in tables.items()
        },
    }
    write_json(report, folder / "report.json")


def row_as_data(row: Row) -> dict:
    return {field: as_data(value) for field, value in row._asdict().items()}


def check(name: str, rows: Sequence[Row]) -> None:
    """Stop where our maps say no more of things than the maps of other words, or than a box."""
    score = {row.method: row.iou for row in rows}
    blind = max(score[SHUFFLED].high, score["a box in the middle"].high)
    if not score["ours"].low > blind:
        raise SystemExit(f"the control failed ({name}): our maps find no more than chance")
