"""Runs the experiments and writes a gallery: a page for each, and one that leads to them.

python -m experiments.gallery                     all of docs/gallery, a quarter of an hour
python -m experiments.gallery test_guidance       one, the others' pages stay
python -m experiments.gallery --weights sd-v1-5 --out mine
                                                  another model's, the phantom's answers beside

A gallery that was stopped goes on with the same command: what it had drawn is not drawn again.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from PIL import Image

from stable_diffusion_tf.errors import UsageError
from xray.film import Film
from xray.journal import UNFINISHED
from xray.report import (
    FIGURE,
    JSON,
    PRINTED,
    Report,
    read_report,
    table_lines,
    told,
    write_json,
)

from .published import BESIDE, BLOCKS, READERS, Beside

EXPERIMENTS = Path(__file__).resolve().parents[1]
GALLERY = EXPERIMENTS.parent / "docs" / "gallery"
INDEX = "README.md"
BEGUN = "unfinished.json"  # what a gallery that is not finished asks for, and has drawn
SHIPPED = "phantom"
INTRODUCTION = (
    "Each question is a script, each script a picture, a number and a control that would have "
    "failed if the number meant nothing."
)
OF_PHANTOM = (
    "`make gallery` draws all of it again with the phantom, the small model that comes with this "
    "repository; with WEIGHTS=… and OUT=… another model's. How it works inside, beside its twin "
    "whose padding carries the prompt, and how true maps of words are: [the phantoms]"
    "({phantoms})."
)
MEGABYTES = 4.0  # of a film's page, which is too large for git
MORE = {"text2image": ("--html", "--guidance", "4")}  # its film holds what a page shows
NOT_FOR = {  # options that a script does without
    "test_precision": ("--precision",),  # it compares all
    "test_image_encoder": ("--size",),  # a photograph's
}
ESCAPED = re.compile(r"([*<>|\\`])")


class Story(NamedTuple):
    """What a script says of itself: its question, and how its picture is to be read."""

    question: str
    reading: str


def main(
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    /,
    weights: str = SHIPPED,
    out: Path = GALLERY,
    precision: str | None = None,
    size: int | None = None,
    backend: str | None = None,
    budget: str | None = None,
) -> None:
    """Run experiments as a person would, and write a page for each.

    Args:
        names: of scripts; by default all.
        weights: a model's name, or its folder or file.
        out: the folder to write into; for another model than the phantom, one of its own.
        precision: for the scripts that take one; by default float32.
        size: pixels along the side of pictures; by default, what the model was trained on.
        backend: what Keras computes with; by default TensorFlow.
        budget: how long each may take, as 10min: fewer pictures and steps are taken as need be.
    """
    known = [name for group in BLOCKS.values() for name in group]
    if unknown := sorted({*names} - {*known}):
        raise UsageError(f"no experiment {unknown[0]}; choose from {', '.join(known)}")
    if weights != SHIPPED and out.resolve() == GALLERY:
        raise UsageError(f"{out} shows the phantom; name a folder for {weights}: --out my-gallery")
    said = {"--precision": precision, "--size": size, "--backend": backend, "--budget": budget}
    chosen = [f"{name}={value}" for name, value in said.items() if value is not None]
    asked = {"weights": weights, "options": chosen, "names": [*names] or known}
    out.mkdir(parents=True, exist_ok=True)
    drawn = read_begun(out, asked)
    for name in asked["names"]:
        if name not in drawn and draw(name, weights, chosen, out):
            drawn.append(name)
            write_json(asked | {"drawn": drawn}, out / BEGUN)
    (out / INDEX).write_text(write_index(read_all(out), weights, out), encoding="utf-8")
    if failed := [name for name in asked["names"] if name not in drawn]:
        raise SystemExit(f"{len(failed)} failed: {', '.join(failed)}; the same command tries again")
    (out / BEGUN).unlink(missing_ok=True)


def read_begun(out: Path, asked: Mapping[str, Any]) -> list[str]:
    """What a gallery that asked for the same had drawn when it was stopped."""
    begun = out / BEGUN
    if not begun.exists():
        return []
    found = json.loads(begun.read_text(encoding="utf-8"))
    drawn = found.pop("drawn")
    if found != asked:
        return []
    print(f"{len(drawn)} of {len(asked['names'])} were drawn before", flush=True)
    return drawn


def draw(name: str, weights: str, chosen: Sequence[str], out: Path) -> bool:
    """Run one script and write its page; whether it went well."""
    started = time.perf_counter()
    with scratch_of(name, out) as scratch:
        try:
            folder = run(name, weights, chosen, scratch)
        except RuntimeError as error:
            print(f"{name:36} FAILED: {error}", flush=True)
            return False
        report, facts = read_report(folder / JSON)
        pictures = [file for file in facts["files"].values() if file.endswith(".png")]
        for file in pictures:
            pack(folder / file, out / image_of(name, file))
        shutil.copyfile(folder / JSON, out / f"{name}.json")
        if "film" in facts["files"]:
            Film.open(folder).to_html(out / f"{name}.html", megabytes=MEGABYTES)
    asked = words_for(name, weights, chosen) if weights != SHIPPED or chosen else []
    page = write_page(name, report, facts, asked, out)
    (out / f"{name}.md").write_text(page, encoding="utf-8")
    print(f"{name:36} {time.perf_counter() - started:4.0f} s  {report.finding}", flush=True)
    return True


@contextmanager
def scratch_of(name: str, out: Path) -> Iterator[Path]:
    """A folder for a script to run in. It goes at the end, unless the script was stopped in the
    middle of a long run: then what it keeps to go on with is found there by the same command."""
    scratch = out / UNFINISHED / name
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        yield scratch
    finally:
        if not [*scratch.glob(f"outputs/*/{UNFINISHED}")]:
            shutil.rmtree(scratch)
            if not [*scratch.parent.iterdir()]:
                scratch.parent.rmdir()


# --- running -----------------------------------------------------------------------------------


def run(name: str, weights: str, chosen: Sequence[str], scratch: Path) -> Path:
    """One script in a process of its own, in the folder `scratch`; where it saved. Raises
    RuntimeError where it ends with an error, its control's too."""
    asked = words_for(name, weights, chosen)
    command = [sys.executable, EXPERIMENTS / f"{name}.py", *asked, *MORE.get(name, ())]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        killed = f"killed by signal {-done.returncode}; " if done.returncode < 0 else ""
        raise RuntimeError(killed + (done.stderr or done.stdout).strip().rpartition("\n")[2])
    return max(scratch.glob(f"outputs/*/*/{JSON}"), key=lambda path: path.stat().st_mtime).parent


def words_for(name: str, weights: str, chosen: Sequence[str]) -> list[str]:
    """What is typed after the script's name."""
    model = str(Path(weights).absolute()) if os.sep in weights else weights
    mine = [option for option in chosen if option.partition("=")[0] not in NOT_FOR.get(name, ())]
    return ["--weights", model, *mine]


def link_to(file: str, out: Path) -> str:
    """The way from a gallery to a file of the one that is shipped."""
    try:
        return Path(os.path.relpath(GALLERY / file, out)).as_posix()
    except ValueError:  # it lies on another drive
        return (GALLERY / file).resolve().as_uri()


def read_story(name: str) -> Story:
    """The script's docstring: its first sentence is the question."""
    tree = ast.parse((EXPERIMENTS / f"{name}.py").read_text(encoding="utf-8"))
    question, _, reading = ast.get_docstring(tree).partition("\n\n")
    return Story(" ".join(question.split()), reading)


def read_all(folder: Path) -> dict[str, Report]:
    """The reports of all experiments that have a page."""
    return {path.stem: read_report(path)[0] for path in folder.glob("*.json") if path.name != BEGUN}


def pack(source: Path, target: Path) -> None:
    """The same pixels in half of the bytes."""
    with Image.open(source) as image:
        image.convert("RGB").save(target, lossless=True, method=6)


def image_of(name: str, file: str) -> str:
    """What a picture of a run is called in the gallery."""
    stem = Path(file).stem
    return f"{name}.webp" if file == FIGURE else f"{name}-{stem}.webp"


# --- writing -----------------------------------------------------------------------------------


def write_page(
    name: str,
    report: Report,
    facts: Mapping[str, Any],
    asked: Sequence[str] = (),
    out: Path = GALLERY,
) -> str:
    """The page, in the gallery `out`, of a script that was asked with these words."""
    story, kernels = read_story(name), facts["model"]["kernels"]
    more = [file for file in facts["files"].values() if file.endswith(".png") and file != FIGURE]
    shown = "".join(f"![{Path(file).stem}]({image_of(name, file)})\n\n" for file in more)
    rows = "\n".join(table_lines(report.table[:PRINTED]))
    rest = len(report.table) - PRINTED
    cut = f"\n… and {rest} rows more, in {name}.json" if rest > 0 else ""
    film = (
        "\n\n`make gallery` writes the run beside this page as one that opens anywhere: "
        f"{name}.html."
        if "film" in facts["files"]
        else ""
    )
    glossary, judge = (link_to(f"../{file}.md", out) for file in ("glossary", "judge"))
    where = f"{kernels['cpu']}, {kernels['instruction_set']}, {kernels['threads']} threads"
    return f"""# {escape(story.question)}

![{escape(report.finding)}]({name}.webp)

**{escape(report.finding)}**

Control: {escape(str(report.control))}

```sh
{shlex.join([".venv/bin/python", f"experiments/{name}.py", *asked])}
```

{escape(story.reading)}{film}

{shown}```text
{rows}{cut}
```

{facts["seconds"]:.0f} s on {where}. Every number with its interval, n and unit is in
[{name}.json]({name}.json); the words are in the [glossary]({glossary}), what “as asked” means
in [how pictures are judged]({judge}). [All questions](README.md)
"""


def write_index(reports: Mapping[str, Report], weights: str = SHIPPED, out: Path = GALLERY) -> str:
    """The page that leads to all: where to begin, a table for each building block, and what others
    found. Another model's figures stand beside the phantom's."""
    own = {} if weights == SHIPPED else read_all(GALLERY)
    phantoms = OF_PHANTOM.format(phantoms=link_to("phantoms/README.md", out))
    of_whom = phantoms if weights == SHIPPED else f"Here `{escape(weights)}` is asked."
    parts = [f"# Gallery\n\n{INTRODUCTION} {of_whom} Intervals are 95 %.\n", "## Where to begin\n"]
    for reader, steps in READERS.items():
        here = [one for one in steps if one[0] in reports]
        listed = [f"1. [{read_story(name).question}]({name}.md) {why}" for name, why in here]
        parts += ["\n".join([f"**{reader}**\n", *listed, ""])] if listed else []
    for block, names in BLOCKS.items():
        rows = [row(name, reports, own) for name in names if name in reports]
        head = ("question", "answer", *["the phantom's"] * bool(own), "picture")
        parts += [f"## {block}\n\n{table(head, rows)}"] if rows else []
    here = [reports, own] if own else [reports]
    beside = [found for one in BESIDE if (found := compare(one, *here))]
    whose = ("the phantom", "why the phantom differs") if own else ("why they differ",)
    head = ("what", "published", "here", *whose)
    parts += [f"## Beside the literature\n\n{table(head, beside)}"] if beside else []
    return "\n".join(parts)


def row(name: str, reports: Mapping[str, Report], own: Mapping[str, Report]) -> tuple[str, ...]:
    answers = [escape(some[name].finding) for some in (reports, own) if name in some]
    return (
        f"[{escape(read_story(name).question)}]({name}.md)",
        *answers,
        f'<a href="{name}.md"><img src="{name}.webp" width="240" alt="{name}"></a>',
    )


def compare(beside: Beside, *reports: Mapping[str, Report]) -> tuple[str, ...] | None:
    """A published figure, and that of each model's reports, of which the phantom's are the last;
    None where the script has no report of the first. Another model's may lack the number. Raises
    ValueError where the phantom's does."""
    if beside.script not in reports[0]:
        return None
    numbers = [some[beside.script].numbers for some in reports]
    if beside.number not in numbers[-1]:
        raise ValueError(f"{beside.script} reports no number {beside.number!r}")
    ours = [escape(told(n[beside.number])) if beside.number in n else "none" for n in numbers]
    return f"[{beside.what}]({beside.script}.md)", beside.published, *ours, beside.why


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escape(text: str) -> str:
    """Signs that Markdown would take for its own."""
    return ESCAPED.sub(r"\\\1", text)
