"""What does looking cost? A run alone, its film, and the film with every cross-attention map.

One process takes the kinds in turns, so that a noisy machine is noisy for all, and times each step
with all that is done in it: the network, what the probes reduce, the frame on disk. The first step
of a run, in which it is compiled, is told apart. Peaks of memory are of processes of their own, one
for each kind. The phantom by default; `--weights` names any other checkpoint.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a cat left of an apple on a red background"
KINDS = ("alone", "film", "film with all cross-attention")


def watch(times: list[float]) -> Callable[[Sequence[int]], Iterator[int]]:
    """A progress function that notes when each step begins, and when the last has ended."""

    def steps(indices: Sequence[int]) -> Iterator[int]:
        for index in indices:
            times.append(time.perf_counter())
            yield index
        times.append(time.perf_counter())

    return steps


def run(sd: Any, kind: str, steps: int, out: Path) -> list[float]:
    """Seconds of each step."""
    from xray.film import Film
    from xray.probe import Mean, Probe

    times: list[float] = []
    if kind == "alone":
        context = sd.encode_text([PROMPT, ""])
        for _ in sd.denoise(context[:1], context[1:], steps, progress=watch(times)):
            pass
    else:
        probes = [Probe("unet.*.attn2.probs", Mean("head"))] if "attention" in kind else []
        Film.shoot(sd, PROMPT, steps=steps, probes=probes, out=out, progress=watch(times))
    return [after - before for before, after in pairwise(times)]


def child(weights: str, kind: str, steps: int) -> None:
    """One process: print the most memory that it held, in bytes."""
    import resource

    from xray.script import load_model

    with tempfile.TemporaryDirectory() as out:
        run(load_model(weights), kind, steps, Path(out))
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit))


def peak(weights: str, kind: str, steps: int) -> float:
    command = [sys.executable, __file__, "--weights", weights, "--steps", str(steps)]
    done = subprocess.run(
        [*command, "--kind", kind], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(weights: str, steps: int, turns: int, long: int) -> None:
    from xray.script import load_model

    # first, while this process is small: one that it starts begins with its peak
    peaks = {kind: peak(weights, kind, long) for kind in KINDS}
    sd = load_model(weights)
    sd.finish = lambda *_: None  # the large parts stay, so that every turn begins alike
    taken: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for _ in range(turns):
        for kind, seconds in taken.items():
            with tempfile.TemporaryDirectory() as out:
                seconds.append(run(sd, kind, steps, Path(out)))
    print(f"{weights}, {steps} steps, {turns} turns; peaks of {long} steps")
    print(f"{'':32}{'first step':>12}{'others':>12}{'ratio':>8}{'peak':>10}")
    base = statistics.median(s for run_ in taken["alone"] for s in run_[1:])
    for kind, runs in taken.items():
        first = statistics.median(seconds[0] for seconds in runs)
        others = statistics.median(s for seconds in runs for s in seconds[1:])
        print(
            f"{kind:32}{first:>10.2f} s{others * 1e3:>9.1f} ms{others / base:>8.3f}"
            f"{peaks[kind] / 1e6:>7.0f} MB"
        )


def main(
    weights: str = "phantom",
    steps: int = 25,
    turns: int = 5,
    long: int = 50,
    kind: str | None = None,
) -> None:
    """Time a run with nobody looking, filmed, and with all cross-attention maps on the film.

    Args:
        weights: a model's name, folder or file.
        steps: steps of the runs that are timed.
        turns: runs of each kind, taken in turns.
        long: steps of the runs whose peak of memory is taken.
        kind: what a process of its own is started for.
    """
    if kind:
        child(weights, kind, steps)
    else:
        compare(weights, steps, turns, long)


if __name__ == "__main__":
    tyro.cli(main)
