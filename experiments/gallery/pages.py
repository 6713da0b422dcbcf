"""Runs the experiments and writes docs/gallery: a page for each, and one that leads to them.

python -m experiments.gallery                   all, some minutes
python -m experiments.gallery test_guidance     one, the others' pages stay
"""

import ast
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from PIL import Image

from stable_diffusion_tf.errors import UsageError

from .published import BESIDE, BLOCKS, Beside

EXPERIMENTS = Path(__file__).resolve().parents[1]
GALLERY = EXPERIMENTS.parent / "docs" / "gallery"
INDEX = "README.md"
ESCAPED = re.compile(r"([*<>|\\`])")


class Story(NamedTuple):
    """What a script says of itself: its question, and how its picture is to be read."""

    question: str
    reading: str


@dataclass(frozen=True)
class Told:
    """What a run printed. said: its numbers; seconds: from the shell to the end."""

    said: str
    finding: str
    control: str
    picture: Path
    seconds: float


def main(
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    /,
    weights: str = "phantom",
    out: Path = GALLERY,
) -> None:
    """Run experiments as a person would, and write a page for each.

    Args:
        names: of scripts; by default all.
        weights: a model's name, or its folder or file.
        out: the folder to write into.
    """
    known = [name for group in BLOCKS.values() for name in group]
    if unknown := sorted({*names} - {*known}):
        raise UsageError(f"no experiment {unknown[0]}; choose from {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    failed = [name for name in names or known if not draw(name, weights, out)]
    pages = {name: out / f"{name}.md" for name in known}
    there = {name: page.read_text("utf-8") for name, page in pages.items() if page.exists()}
    (out / INDEX).write_text(write_index(there), encoding="utf-8")
    if failed:
        raise SystemExit(f"{len(failed)} failed: {', '.join(failed)}")


def draw(name: str, weights: str, out: Path) -> bool:
    """Run one script and write its page; whether it went well."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            told = run(name, weights, scratch)
        except RuntimeError as error:
            print(f"{name:36} FAILED: {error}", flush=True)
            return False
        print(f"{name:36} {told.seconds:4.0f} s  {told.finding}", flush=True)
        pack(told.picture, out / f"{name}.webp")
    page = write_page(name, read_story(name), told)
    (out / f"{name}.md").write_text(page, encoding="utf-8")
    return True


# --- running -----------------------------------------------------------------------------------


def run(name: str, weights: str, scratch: str) -> Told:
    """One script in a process of its own. Raises RuntimeError where it ends with an error, its
    control's too."""
    command = [sys.executable, EXPERIMENTS / f"{name}.py", "--weights", weights, "--out", scratch]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().rpartition("\n")[2])
    return hear(done.stdout, seconds)


def hear(said: str, seconds: float) -> Told:
    """What a script printed → its parts."""
    head, _, tail = said.partition("\nfinding  ")
    finding, *rest = tail.splitlines()
    lines = dict(line.split(maxsplit=1) for line in rest if line.strip())
    return Told(head.strip("\n"), finding, lines["control"], Path(lines["picture"]), seconds)


def read_story(name: str) -> Story:
    """The script's docstring: its first sentence is the question."""
    tree = ast.parse((EXPERIMENTS / f"{name}.py").read_text(encoding="utf-8"))
    question, _, reading = ast.get_docstring(tree).partition("\n\n")
    return Story(" ".join(question.split()), reading)


def pack(source: Path, target: Path) -> None:
    """The same pixels in half of the bytes."""
    with Image.open(source) as image:
        image.convert("RGB").save(target, lossless=True, method=6)


# --- writing -----------------------------------------------------------------------------------


def write_page(name: str, story: Story, told: Told) -> str:
    return f"""# {escape(story.question)}

![{escape(told.finding)}]({name}.webp)

**{escape(told.finding)}**

Control: {escape(told.control)}

```sh
.venv/bin/python experiments/{name}.py
```

{escape(story.reading)}

<details><summary>All that it printed, in {told.seconds:.0f} s</summary>

```text
{told.said}
```

</details>
"""


def write_index(pages: Mapping[str, str]) -> str:
    """The page that leads to all: a table for each building block, and what others found."""
    parts = [
        "# Gallery\n\nEach question is a script, each script a picture, a number and a control "
        "that would have failed if the number meant nothing. `make gallery` draws all of it again "
        "with the phantom, the small model that comes with this repository; `--weights` asks "
        "another model.\n"
    ]
    for block, names in BLOCKS.items():
        rows = [row(name, pages[name]) for name in names if name in pages]
        parts.append(f"## {block}\n\n{table(('question', 'answer', 'picture'), rows)}")
    beside = [found for one in BESIDE if (found := compare(one, pages))]
    head = ("what", "published", "here", "why they differ")
    parts.append(f"## Beside the literature\n\n{table(head, beside)}")
    return "\n".join(parts)


def row(name: str, page: str) -> tuple[str, str, str]:
    question, _, finding = page.split("\n\n")[:3]
    return (
        f"[{question.removeprefix('# ')}]({name}.md)",
        finding.strip("*"),
        f'<a href="{name}.md"><img src="{name}.webp" width="240" alt="{name}"></a>',
    )


def compare(beside: Beside, pages: Mapping[str, str]) -> tuple[str, str, str, str] | None:
    """A published figure and ours; None where the script has no page yet. Raises ValueError where
    its page does not say ours."""
    if beside.script not in pages:
        return None
    page = pages[beside.script]
    ours = re.search(beside.ours, page.replace("\\", ""))
    if ours is None:
        raise ValueError(f"nothing like {beside.ours!r} in what {beside.script} printed")
    return f"[{beside.what}]({beside.script}.md)", beside.published, ours[1], beside.why


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escape(text: str) -> str:
    """Signs that Markdown would take for its own."""
    return ESCAPED.sub(r"\\\1", text)
