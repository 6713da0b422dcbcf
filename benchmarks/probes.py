"""What does looking cost? A run alone, its film, and the film with every cross-attention map.

The kinds take turns step by step, in one process, so that a noisy machine is noisy for all. Timed
is all that a step does: the network for both halves of the guidance, the arithmetic around it, what
the probes reduce, the frame on disk; compiling is left out. Peaks of memory are of processes of
their own, one for each kind. The phantom by default; `--weights` names any other checkpoint.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import tyro

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a cat left of an apple on a red background"
KINDS = ("alone", "film", "film with all cross-attention")


def probes_of(kind: str) -> list:
    from xray.probe import Mean, Probe

    return [Probe("unet.*.attn2.probs", Mean("head"))] if "attention" in kind else []


def taking_steps(sd: Any, kind: str, steps: int, out: Path) -> Iterator[float]:
    """Take a step of a run whenever asked, and give the seconds that it took."""
    from xray.film.camera import in_order, start_film, write_step
    from xray.probe.instrumented import instrument

    start_film(out, {"steps": steps})
    seen = instrument(sd, probes_of(kind))
    context = sd.encode_text([PROMPT, ""])
    run = seen.denoise(context[:1], context[1:], steps, progress=list)
    while True:
        started = time.perf_counter()
        step = next(run, None)
        if step is None:
            return
        if "film" in kind:
            write_step(out, step, in_order(step, seen.reads))
        yield time.perf_counter() - started


def child(weights: str, kind: str, steps: int) -> None:
    """One process: print the most memory that it held, in bytes."""
    import resource

    from xray.film import Film
    from xray.script import load_model

    sd = load_model(weights)
    if kind == "alone":
        sd.generate(PROMPT, steps=steps)
    else:
        with tempfile.TemporaryDirectory() as out:
            Film.shoot(sd, PROMPT, steps=steps, probes=probes_of(kind), out=out)
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit))


def peak(weights: str, kind: str, steps: int) -> float:
    command = [sys.executable, __file__, "--weights", weights, "--long", str(steps)]
    done = subprocess.run(
        [*command, "--kind", kind], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def times(weights: str, steps: int) -> dict[str, list[float]]:
    """Kind → the seconds of each step but the first, in which it is compiled."""
    from xray.script import load_model

    sd = load_model(weights)
    with tempfile.TemporaryDirectory() as out:
        runs = [taking_steps(sd, kind, steps, Path(out) / kind) for kind in KINDS]
        turns = list(islice(zip(*runs, strict=True), 1, None))
    return dict(zip(KINDS, zip(*turns, strict=True), strict=True))


def compare(weights: str, steps: int, long: int) -> None:
    # first, while this process is small: one that it starts begins with its peak
    peaks = {kind: peak(weights, kind, long) for kind in KINDS}
    taken = times(weights, steps)
    print(f"{weights}: medians of {steps - 1} steps; peaks of whole runs of {long} steps")
    print(f"{'':32}{'a step':>12}{'ratio':>8}{'peak':>10}")
    for kind, seconds in taken.items():
        step = statistics.median(seconds)
        ratio = statistics.median(a / b for a, b in zip(seconds, taken["alone"], strict=True))
        print(f"{kind:32}{step * 1e3:>9.1f} ms{ratio:>8.3f}{peaks[kind] / 1e6:>7.0f} MB")


def main(
    weights: str = "phantom",
    steps: int = 200,
    long: int = 50,
    kind: str | None = None,
) -> None:
    """Time a run with nobody looking, filmed, and with all cross-attention maps on the film.

    Args:
        weights: a model's name, folder or file.
        steps: steps of the runs that are timed.
        long: steps of the runs whose peak of memory is taken.
        kind: what a process of its own is started for.
    """
    if kind:
        child(weights, kind, long)
    else:
        compare(weights, steps, long)


if __name__ == "__main__":
    tyro.cli(main)
