"""What do more workers bring to a sweep, and what does each run cost beside its computing?

Each engine sweeps in processes of its own, in turns. Throughput: pictures of the phantom in 25
steps; a minute's worth is taken from the first finished run to the last, so that starting and
compiling are told apart from it. Overhead: a function that returns at once, from one finished run
to the next. Memory: what the process holds that hands out the runs, after a tenth of very many such
runs and after all of them; the index and the figure are written after that.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tyro

from xray.report import Control, Report

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("serial", "processes", "ray")
PROMPT, STEPS, GUIDANCE = "a cat left of an apple on a blue background", 25, 7.5


@dataclass(frozen=True)
class Asked:
    seed: int


def answer(number: float) -> Report:
    control = Control("nothing", 0.0, True, "it is a benchmark")
    return Report("It took its time.", control, {"number": number})


def picture(sd: Any, asked: Asked) -> Report:
    image = sd.generate(PROMPT, steps=STEPS, guidance=GUIDANCE, seed=asked.seed)
    return answer(float(image.mean()))


def nothing(_: Any, asked: Asked) -> Report:
    return answer(float(asked.seed))


KINDS = {"picture": (picture, "phantom"), "nothing": (nothing, None)}


def child(kind: str, engine: str, runs: int, workers: int) -> None:
    """One process: print what a sweep took as a line of JSON."""
    from experiments.sweep import sweep

    main, weights = KINDS[kind]
    held: list[tuple[float, int]] = []  # when, and how many bytes
    threading.Thread(target=watch, args=(held,), daemon=True).start()
    with tempfile.TemporaryDirectory() as out:
        started = time.time()
        asked = [Asked(seed) for seed in range(runs)]
        done = sweep(main, asked, out=out, engine=engine, weights=weights, workers=workers)
        assert done.finished == runs, f"{done.failed} of {runs} failed"
        ends = sorted(path.stat().st_mtime for path in Path(out).glob("runs/*"))
    tenth, last = (max(b for t, b in held if t <= ends[i]) for i in (runs // 10, -1))
    each = (ends[-1] - ends[0]) / (runs - 1)
    print(json.dumps({"start": ends[0] - started, "each": each, "tenth": tenth, "last": last}))


def watch(held: list[tuple[float, int]]) -> None:
    """This process' memory, ten times a second."""
    page = os.sysconf("SC_PAGE_SIZE")
    while True:
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        held.append((time.time(), page * resident))
        time.sleep(0.1)


def run_once(kind: str, engine: str, runs: int, workers: int) -> dict[str, float]:
    asked = {"kind": kind, "engine": engine, "runs": runs, "workers": workers}
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, *words],
        cwd=ROOT,
        env=env,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(engines: tuple[str, ...], turns: int, pictures: int, many: int, workers: int) -> None:
    taken = {engine: {kind: [] for kind in KINDS} for engine in engines}
    for _ in range(turns):
        for engine, results in taken.items():
            results["picture"].append(run_once("picture", engine, pictures, workers))
    for engine, results in taken.items():
        results["nothing"].append(run_once("nothing", engine, many, workers))
    print(f"{workers} workers; {pictures} pictures, median of {turns}; {many} runs of nothing")
    print(f"{'':12}{'to the first':>14}{'a minute':>10}{'ratio':>8}{'overhead':>11}{'held':>24}")
    base = median(taken[engines[0]]["picture"], "each")
    for engine, results in taken.items():
        each, start = (median(results["picture"], key) for key in ("each", "start"))
        (tiny,) = results["nothing"]
        held = f"{tiny['tenth'] / 1e6:.0f} → {tiny['last'] / 1e6:.0f} MB"
        row = f"{engine:12}{start:>12.1f} s{60 / each:>10.1f}{base / each:>8.2f}"
        print(f"{row}{1e3 * tiny['each']:>8.1f} ms{held:>24}")


def median(results: list[dict[str, float]], key: str) -> float:
    return statistics.median(result[key] for result in results)


def main(
    turns: int = 3,
    engines: tuple[str, ...] = ENGINES,
    pictures: int = 60,
    many: int = 10_000,
    workers: int = os.cpu_count() or 1,
    kind: str | None = None,
    engine: str = "serial",
    runs: int = 0,
) -> None:
    """Time sweeps in this process, in several, and on Ray where it is installed.

    Args:
        turns: processes for each engine, taken in turns.
        engines: which to compare; the first is what the ratios are of.
        pictures: runs of the sweep whose throughput is taken.
        many: runs of the sweep that computes nothing.
        workers: of processes and Ray.
        kind: what a process of its own is started for.
        engine: likewise.
        runs: likewise.
    """
    if kind:
        child(kind, engine, runs, workers)
        return
    there = tuple(name for name in engines if name != "ray" or find_spec("ray"))
    compare(there, turns, pictures, many, workers)


if __name__ == "__main__":
    tyro.cli(main)
