"""Is what an experiment says it will cost what it costs? Estimates beside the truth, per script.

Each experiment runs in a process of its own, in turns, with options that are over in some minutes:
it looks ahead as it would for `--budget`, then does all of its work. The estimate is of the whole
run from the first line to the last call of the report; the truth is by the clock, and the peak of
resident memory as the system has it. A second process does the same work and looks at nothing: what
looking ahead costs is the difference.
"""

import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = tuple(sorted(path.stem for path in (ROOT / "experiments").glob("te[sx]t*.py")))
NEVER = 1e9  # seconds; a budget that is long enough for all


def child(script: str, weights: str, words: tuple[str, ...], looking: bool) -> None:
    """One process: print what was foreseen and what was so, as a line of JSON."""
    started = time.monotonic()
    from dataclasses import replace

    from stable_diffusion_tf.machine import peak_memory
    from xray.script import load_model

    module = importlib.import_module(f"experiments.{script}")
    asked = tyro.cli(module.Options, args=[*words, "--weights", weights])
    sd, foreseen = load_model(weights), None
    from xray.budget.cost import cost_of, measure
    from xray.budget.watch import Watch

    watch = Watch(module.main, sd, asked, started)
    if looking:
        found = watch.rehearse(asked)
        measure(found, watch.times)
        foreseen = cost_of(found, watch.times, watch.spent(), {})
        del found
    with tempfile.TemporaryDirectory() as out:
        report = module.main(sd, replace(asked, folder=Path(out)))
        report.save(Path(out), {})
    true = time.monotonic() - started
    told = {"seconds": true, "bytes": peak_memory()}
    print(json.dumps({"foreseen": foreseen and foreseen._asdict(), "true": told}))


def run_once(script: str, weights: str, words: tuple[str, ...], looking: bool) -> dict:
    options = ["--script", script, "--weights", weights, *(["--looking"] if looking else [])]
    command = [sys.executable, __file__, *options, "--words", *words]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(scripts: tuple[str, ...], weights: str, words: tuple[str, ...], turns: int) -> None:
    print(f"{'':38}{'foreseen':>20}{'true':>20}{'ratio':>14}{'looking':>9}")
    for script in scripts:
        runs = [
            [run_once(script, weights, words, look) for look in (True, False)] for _ in range(turns)
        ]
        looked = [with_look for with_look, _ in runs]
        middle = {
            (side, unit): statistics.median(run[side][unit] for run in looked)
            for side in ("foreseen", "true")
            for unit in ("seconds", "bytes")
        }
        alone = statistics.median(bare["true"]["seconds"] for _, bare in runs)
        cells = [
            f"{middle[side, 'seconds']:.1f} s, {middle[side, 'bytes'] / 1e9:.2f} GB"
            for side in ("foreseen", "true")
        ]
        ratio = " ".join(
            f"{middle['foreseen', unit] / middle['true', unit]:.2f}"
            for unit in ("seconds", "bytes")
        )
        cost = middle["true", "seconds"] / alone - 1
        print(
            f"{script:38}" + "".join(f"{cell:>20}" for cell in cells) + f"{ratio:>14}{cost:>9.0%}"
        )


def main(
    scripts: tuple[str, ...] = EXPERIMENTS,
    weights: str = "phantom",
    words: tuple[str, ...] = (),
    turns: int = 1,
    script: str | None = None,
    looking: bool = False,
) -> None:
    """Run experiments, and compare what they foresee with what they take.

    Args:
        scripts: names of files in experiments/.
        weights: a model's name, folder or file.
        words: further options of the scripts, last of all, as --words --steps 10.
        turns: how often each is run.
        script: what a process of its own is started for.
        looking: whether that process looks ahead.
    """
    if script:
        child(script, weights, words, looking)
    else:
        compare(scripts, weights, words, turns)


if __name__ == "__main__":
    tyro.cli(main)
