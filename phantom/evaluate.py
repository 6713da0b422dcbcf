"""How much of what it is told does the phantom draw? `python -m phantom.evaluate`.

The prompts are new: their pair of things, or the thing and its background, never occur in
training. What a picture shows is for the judge to say (phantom/judge.py): each thing once, and no
other. The judge itself is judged first, on real scenes. The control is the same pictures judged
against shuffled prompts: what is right by luck.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from phantom.judge import Findings, Verdict, judge, verdict
from phantom.prompts import check_size, known_things
from phantom.world import (
    Scene,
    for_evaluation,
    phrase,
    render,
    scenes,
    side_of,
    wording,
)
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_model, to_uint8
from stable_diffusion_tf.progress import progress_bar
from xray import measure, plots, script
from xray.pictures import photograph, read_image
from xray.plain_figure import PlainFigure
from xray.report import write_json

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

PHOTOGRAPH = 256  # pixels
REAL = 500  # scenes to judge the judge and the VAE on
SHOWN, COLUMNS = 40, 8  # pictures on the sheet
RIGHT = {"color": "#0072b2", "linestyle": "-", "linewidth": 2.5}  # blue, unbroken
WRONG = {"color": "#d55e00", "linestyle": (0, (2, 1.5)), "linewidth": 2.5}  # orange, dashed


@dataclass(frozen=True)
class Row:
    """A line of the table: per cent, with a 95 % interval and the share that is right by luck,
    or another unit."""

    what: str
    reached: float
    number: int
    unit: str = "%"
    target: float | None = None
    interval: tuple[float, float] | None = None
    shuffled: float | None = None


def main(
    weights: str = "phantom",
    prompts: int = 300,
    steps: int = 25,
    guidance: float = 4.0,
    seed: int = 0,
    batch: int = 25,
    out: Path = Path("outputs"),
) -> None:
    """Judge the pictures that the phantom draws for prompts it never saw.

    Args:
        weights: a shipped checkpoint's name, or a diffusers folder.
        prompts: how many, half of them with one thing and half with two.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated; 1 is not at all.
        seed: draws the scenes and the noise.
        batch: pictures drawn at once; another number gives other noise.
        out: the folder to save into.
    """
    sd = script.load_model(weights)
    look_at_numbers(sd, prompts, steps, guidance, seed, batch)
    folder = script.make_folder(out, "evaluate", sd.checkpoint.place.name)

    known = known_things(sd)
    real = draw_scenes(seed, REAL, known)
    images = np.stack([render(scene) for scene in real])
    back = round_trip(sd, images, batch)
    was, came = (to_model(y, 1) for y in (images, back))
    rows = [
        rate("judge right on real scenes", all_right, 98, judge_all(real, images)),
        rate("judge right after the VAE", all_right, None, judge_all(real, back)),
        mean_of("VAE round trip, PSNR", measure.psnr(was, came), "dB", 28),
        mean_of("VAE round trip, SSIM", measure.ssim(was, came), ""),
        mean_of("the same of a photograph, 256 px", of_photograph(sd), "dB", 20),
    ]

    told = draw_scenes(seed, prompts, known)
    pictures = draw_pictures(sd, [wording(s) for s in told], steps, guidance, seed, batch)
    findings = [judge(picture) for picture in pictures]
    verdicts = [verdict(s, f) for s, f in zip(told, findings, strict=True)]
    rows += rate_pictures(told, findings)

    settings = {
        "weights": sd.checkpoint.place.name,
        "prompts": prompts,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "batch": batch,
        "backend": sd.backend,
    }
    report = {
        "settings": settings,
        "table": [asdict(row) for row in rows],
        "pictures": [describe(*all_of) for all_of in zip(told, findings, verdicts, strict=True)],
    }
    write_json(report, folder / "report.json")
    title = f"{sd.checkpoint.place.name}, {steps} steps, guidance {guidance:g}, seed {seed}"
    draw_sheet(told, pictures, verdicts, title).savefig(folder / "sheet.png", dpi=150)
    print("\n".join(table(rows)))
    print(f"report  {folder / 'report.json'}")
    print(f"sheet   {folder / 'sheet.png'}")
    if rows[0].reached < rows[0].target:
        raise SystemExit("the judge failed on real scenes: its other figures mean nothing")


# --- scenes and pictures -----------------------------------------------------------------------


def draw_scenes(seed: int, number: int, things: tuple[str, ...]) -> list[Scene]:
    """Held-out scenes, first those with one thing, then as many with two."""
    alone = scenes(seed, number - number // 2, for_evaluation, 1, things)
    return alone + scenes(seed, number // 2, for_evaluation, 2, things)


def of_photograph(sd: "StableDiffusion") -> np.ndarray:
    """The PSNR of the round trip of the experiments' photograph, in dB, (1,)."""
    image = to_model(read_image(photograph(), PHOTOGRAPH)[None], 1)
    return measure.psnr(image, np.clip(sd.decode_latent(sd.encode_image(image)), -1, 1))


def round_trip(sd: "StableDiffusion", images: np.ndarray, batch: int) -> np.ndarray:
    """Images through encoder and decoder, uint8."""
    parts = (images[i : i + batch] for i in range(0, len(images), batch))
    return np.concatenate([to_uint8(sd.decode_latent(sd.encode_image(p))) for p in parts])


def draw_pictures(
    sd: "StableDiffusion",
    prompts: list[str],
    steps: int,
    guidance: float,
    seed: int,
    batch: int,
) -> np.ndarray:
    """A picture for each prompt, uint8; batch number i is drawn from seed + i."""
    batches = [prompts[i : i + batch] for i in range(0, len(prompts), batch)]
    bar = progress_bar(batches, "pictures", "batch")
    made = [
        sd.generate(some, steps=steps, guidance=guidance, seed=seed + i)
        for i, some in enumerate(bar)
    ]
    return np.concatenate(made)


# --- figures -----------------------------------------------------------------------------------


def judge_all(told: Sequence[Scene], pictures: np.ndarray) -> list[tuple[Scene, Verdict]]:
    found = (judge(picture) for picture in pictures)
    return [(s, verdict(s, one)) for s, one in zip(told, found, strict=True)]


def all_right(scene: Scene, found: Verdict) -> bool:
    return found.shown and found.background and (found.side or len(scene.things) == 1)


def rate(
    what: str,
    right: Callable[[Scene, Verdict], bool],
    target: float | None,
    judged: Sequence[tuple[Scene, Verdict]],
    shuffled: Sequence[tuple[Scene, Verdict]] = (),
) -> Row:
    """The share of pictures that are right, in per cent."""
    count = sum(right(*pair) for pair in judged)
    luck = 100 * float(np.mean([right(*pair) for pair in shuffled])) if shuffled else None
    reached = 100 * count / len(judged)
    return Row(what, reached, len(judged), "%", target, wilson(count, len(judged)), luck)


def mean_of(what: str, values: np.ndarray, unit: str, target: float | None = None) -> Row:
    return Row(what, float(np.mean(values)), len(values), unit, target)


def wilson(count: int, number: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share, in per cent (Wilson, JASA 22, 1927)."""
    share, spread = count / number, z * z / number
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return 100 * float(max(0, middle - half)), 100 * float(min(1, middle + half))


def rate_pictures(told: Sequence[Scene], findings: Sequence[Findings]) -> list[Row]:
    """The rates of the drawn pictures, each beside what the same pictures reach when every one is
    judged by the prompt of its neighbour."""
    judged, shuffled = {}, {}
    for number in (1, 2):
        kind = [(s, f) for s, f in zip(told, findings, strict=True) if len(s.things) == number]
        others = kind[1:] + kind[:1]
        judged[number] = [(s, verdict(s, f)) for s, f in kind]
        shuffled[number] = [(s, verdict(s, f)) for (s, _), (_, f) in zip(others, kind, strict=True)]
    both = judged[1] + judged[2], shuffled[1] + shuffled[2]
    return [
        rate("one thing told: it is shown", lambda _, v: v.shown, 90, judged[1], shuffled[1]),
        rate("two told: both are shown", lambda _, v: v.shown, 85, judged[2], shuffled[2]),
        rate("two told: both, side right", lambda _, v: v.side, 80, judged[2], shuffled[2]),
        rate("background right", lambda _, v: v.background, 98, *both),
    ]


def describe(scene: Scene, findings: Findings, found: Verdict) -> dict:
    """What report.json says of one picture."""
    seen = [asdict(m.thing) | {"score": round(m.score, 3)} for m in findings.matches]
    return {
        "prompt": wording(scene),
        "background": findings.background,
        "seen": seen,
        "right": asdict(found),
    }


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield f"{'':34}{'reached':>9}  {'95 % interval':15}{'target':>9}{'shuffled':>10}{'n':>6}"
    for row in rows:
        digits = 1 if row.unit else 3
        interval = "{:.1f} – {:.1f}".format(*row.interval) if row.interval else ""
        target = "" if row.target is None else f"{row.target:g} {row.unit}"
        luck = "" if row.shuffled is None else f"{row.shuffled:.1f} %"
        reached = f"{row.reached:.{digits}f} {row.unit}".rstrip()
        yield f"{row.what:34}{reached:>9}  {interval:15}{target:>9}{luck:>10}{row.number:>6}"


def draw_sheet(
    told: Sequence[Scene], pictures: np.ndarray, verdicts: Sequence[Verdict], title: str
) -> Figure:
    """Pictures from all over the set, the prompt under each and what the judge misses."""
    chosen = np.unique(np.linspace(0, len(told) - 1, min(SHOWN, len(told))).round().astype(int))
    lines = -(-len(chosen) // COLUMNS)
    figure = PlainFigure(figsize=(1.75 * COLUMNS, 2.35 * lines + 0.6), layout="constrained")
    cells = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axes in cells[len(chosen) :]:
        axes.set_axis_off()
    for axes, i in zip(cells[: len(chosen)], chosen, strict=True):
        plots.picture(axes, pictures[i])
        style = RIGHT if all_right(told[i], verdicts[i]) else WRONG
        for edge in axes.spines.values():
            edge.set(**style)
        axes.set_xlabel(caption(told[i], verdicts[i]), fontsize=7.5)
    figure.suptitle(
        f"{title}\nunbroken blue frame: judged right; dashed orange: wrong", fontsize=11
    )
    return figure


def caption(scene: Scene, found: Verdict) -> str:
    """The prompt, line by line, and a last line that says what is wrong."""
    lines = [phrase(scene.things[0])]
    if len(scene.things) == 2:
        lines.append(f"{side_of(*scene.things)} {phrase(scene.things[1])}")
    asked = {
        "things": found.shown,
        "side": found.side or not found.shown or len(scene.things) == 1,
        "background": found.background,
    }
    wrong = ", ".join(name for name, right in asked.items() if not right)
    return "\n".join([*lines, f"on {scene.background}", f"wrong: {wrong}" if wrong else "right"])


# --- command line ------------------------------------------------------------------------------


def look_at_numbers(
    sd: "StableDiffusion", prompts: int, steps: int, guidance: float, seed: int, batch: int
) -> None:
    """Refuse bad numbers before the long work starts."""
    if prompts < 4:
        raise UsageError(f"{prompts} prompts: two of each kind are the least; try --prompts 300")
    if batch < 1:
        raise UsageError(f"a batch of {batch} pictures; try --batch 25")
    check_size(sd)
    nothing = np.zeros((1, 1, 1), np.float32)
    sd.denoise(nothing, nothing, steps, guidance, seed=seed, progress=list)  # not begun: it looks


if __name__ == "__main__":
    script.run(main)
