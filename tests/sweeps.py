"""Functions to sweep over, which worker processes can import, and what sweeps left behind."""

import csv
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from experiments.sweep import rows
from experiments.sweep.folder import RUNS
from xray import rounding
from xray.measure import mean_of
from xray.methods.drawing import draw
from xray.report import Control, Report

ROOT = Path(__file__).resolve().parents[1]
ODD = 3  # the seed with which something goes wrong
PROMPT = "a cat on a red background"


@dataclass(frozen=True)
class Asked:
    """log: a folder in which each computation that begins leaves a file."""

    seed: int
    log: str
    scale: float = 1.0
    seconds: float = 0.0


def note(asked: Asked) -> int:
    """How often this seed has been begun, this time too."""
    (Path(asked.log) / f"{asked.seed}-{os.getpid()}-{time.time_ns()}").touch()
    return begun(asked.log)[asked.seed]


def begun(log: str | Path) -> Counter:
    """Seed → how often it was begun."""
    return Counter(int(path.name.split("-")[0]) for path in Path(log).iterdir())


def workers(log: str | Path) -> set[int]:
    """The processes that computed."""
    return {int(path.name.split("-")[1]) for path in Path(log).iterdir()}


def measure(_: Any, asked: Asked) -> Report:
    """A walk of a hundred numbers."""
    note(asked)
    time.sleep(asked.seconds)
    walk = asked.scale * np.random.default_rng(asked.seed).standard_normal(100)
    numbers = {"mean": mean_of(walk, "mm"), "up": bool(walk.sum() > 0), "steps": 100}
    control = Control("the walk backwards", float(walk[::-1].sum()), True, "order matters")
    return Report(f"It ends at {walk.sum():.2f}.", control, numbers, tensors={"walk": walk})


def broken(_: Any, asked: Asked) -> Report:
    if asked.seed == ODD:
        note(asked)
        raise ValueError("no walk\nwith three")
    return measure(_, asked)


def flaky(_: Any, asked: Asked) -> Report:
    if asked.seed == ODD and note(asked) == 1:
        raise ValueError("not the first time")
    return measure(_, asked)


def dying(_: Any, asked: Asked) -> Report:
    if asked.seed == ODD and note(asked) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(_, asked)


def deadly(_: Any, asked: Asked) -> Report:
    if asked.seed == ODD:
        note(asked)
        os._exit(7)
    return measure(_, asked)


def full(_: Any, asked: Asked) -> Report:
    """As where the disk is full, until a file `room` is there."""
    if asked.seed == ODD and not (Path(asked.log).parent / "room").exists():
        raise OSError(28, "No space left on device")
    return measure(_, asked)


def heavy(_: Any, asked: Asked) -> Report:
    """Writes 2 MB."""
    report = measure(_, asked)
    return Report(report.finding, report.control, report.numbers, tensors={"x": np.ones(2**18)})


def drawn(sd: Any, asked: Asked) -> Report:
    """A latent, and a twin that starts a last bit off: how far rounding reaches."""
    note(asked)
    time.sleep(asked.seconds)
    context, uncond = np.split(sd.encode_text([PROMPT, ""]), 2)
    noise = sd.draw_noise(asked.seed, 1)
    twins = np.concatenate([noise, rounding.nudged(noise)])
    run = {"uncond": uncond, "steps": 3, "guidance": 4.0}
    latents = draw(sd, np.repeat(context, 2, 0), twins, run)
    control = Control("a last bit off", float(rounding.spread(latents)), True, "not the same")
    numbers = {"size": float(np.abs(latents[0]).mean())}
    return Report("It was drawn.", control, numbers, tensors={"latents": latents})


def command(main: str, asked: str, options: str) -> list[str]:
    """A process that sweeps: main, one of the above; asked, options: as in Python's source."""
    lines = ["from tests import sweeps", "from tests.sweeps import Asked"]
    lines += ["from experiments.sweep import sweep", f"sweep(sweeps.{main}, {asked}, {options})"]
    return [sys.executable, "-c", "\n".join(lines)]


def wait_for(what: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


# --- what sweeps left behind ----------------------------------------------------------------------


def asked(log: str, count: int = 6, **more) -> list[Asked]:
    return [Asked(seed, log, **more) for seed in range(count)]


def index(out: Path) -> list[dict[str, str]]:
    with open(out / "index.csv", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


def states(out: Path) -> dict[int, str]:
    """Seed → status; no seed is there twice."""
    found = [(row["options"]["seed"], row["status"]) for row in rows(out)]
    assert len(found) == len(dict(found))
    return dict(found)


def check_whole(out: Path, count: int) -> None:
    """Every run is there once, nothing else is, and the index tells of all."""
    there = sorted(path.name for path in (out / RUNS).iterdir())
    assert len(there) == count and sorted(row["run"] for row in index(out)) == there
    assert {row["status"] for row in index(out)} == {"done"}
    assert not (out / "lock").exists() and not [*out.rglob("*.part")]


def latents(out: Path) -> dict[int, np.ndarray]:
    """Seed → a latent and its twin, (2, h, w, 4)."""
    return {
        row["options"]["seed"]: load_file(out / RUNS / row["run"] / "tensors.safetensors")[
            "latents"
        ]
        for row in rows(out)
    }
