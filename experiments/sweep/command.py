"""The sweep as the shell has it."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stable_diffusion_tf.backend import BACKENDS
from stable_diffusion_tf.errors import UsageError
from xray.report import PRINTED, table_lines
from xray.script import INTERRUPTED

from .driver import Swept, sweep
from .folder import rows
from .grid import check_option, find_experiment, grid, read_prompts, read_seeds, read_setting
from .index import INDEX
from .summary import FIGURE, SUMMARY, chosen, numbers_in, summarize

Settings = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


def main(
    experiment: Annotated[str, tyro.conf.Positional],
    /,
    seeds: str | None = None,
    prompts: Path | None = None,
    set: Settings = (),
    weights: str = "phantom",
    backend: Literal[BACKENDS] | None = None,
    engine: Literal["serial", "processes", "ray"] = "serial",
    workers: int | None = None,
    address: str | None = None,
    numbers: tuple[str, ...] = (),
    again: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    out: Path | None = None,
) -> None:
    """Run an experiment once for each combination of options.

    Args:
        experiment: a script's name, such as test_guidance.
        seeds: as 0-99, or 0-4,7.
        prompts: a file, one prompt on each line.
        set: an option and its values, as guidance=1,4,7.5; --set once for each option.
        weights: a model's name, or its folder or file.
        backend: what Keras computes with; by default what KERAS_BACKEND says, or TensorFlow.
        engine: this process, a process for each worker, or Ray.
        workers: how many; by default one for each processor that has memory for it.
        address: of a Ray cluster, or auto; by default Ray is started here.
        numbers: globs of the report's numbers that the summary shows; by default the first few.
        again: try once more what was set aside with an error.
        out: the sweep's folder, which goes on where there is one; by default sweeps/EXPERIMENT.
    """
    module = find_experiment(experiment)
    out = out or Path("sweeps") / Path(experiment).stem
    values = {"weights": [weights], "backend": [backend]}
    for name, given, read in (("prompt", prompts, read_prompts), ("seed", seeds, read_seeds)):
        if given is not None:
            check_option(module.Options, name, f"--{name}s {given}")
            values[name] = read(given)
    settings = [read_setting(module.Options, text) for text in set]
    for name, some in settings:
        if (name in values and name != "weights") or [n for n, _ in settings].count(name) > 1:
            raise UsageError(f"{name} is given twice; name all of its values at once")
        values[name] = some
    asked = grid(module.Options, values)
    try:
        swept = sweep(
            module.main,
            asked,
            out=out,
            engine=engine,
            backend=backend,
            workers=workers,
            address=address,
            numbers=numbers,
            again=again,
        )
    except KeyboardInterrupt:
        print(
            f"\nstopped; what was finished lies in {out}, the same command goes on", file=sys.stderr
        )
        sys.exit(INTERRUPTED)
    tell(swept, numbers)


def tell(swept: Swept, numbers: tuple[str, ...]) -> None:
    """The summary, and where all of it lies."""
    table = summarize(rows(swept.folder))
    known, shown = numbers_in(table), chosen(table, numbers)
    short = [{n: v for n, v in row.items() if n in shown or n not in known} for row in table]
    print("\n".join(table_lines(short[:PRINTED])))
    if len(short) > PRINTED:
        print(f"… and {len(short) - PRINTED} rows more, in {SUMMARY}")
    aside = f", {swept.failed} set aside with an error (--again tries them once more)"
    print(f"finished {swept.finished}{aside if swept.failed else ''}")
    for kind, name in (("index", INDEX), ("summary", SUMMARY), ("figure", FIGURE)):
        if (swept.folder / name).exists():
            print(f"{kind:8} {swept.folder / name}")
