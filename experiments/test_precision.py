"""Where do bfloat16, float16 storage and the other backends deviate from float32?

Text encoder, UNet and decoder are called once each, on the same inputs in every variant: a prompt,
a latent half way through a run, and the latent where it ends. Every value inside is compared with
that of float32 at the same address: max|a − b| / max|b|. The curves show it over the order of
execution: a step up is a layer that loses much, a slow climb is rounding that adds up, and where a
norm or a softmax takes the scale out, a curve may fall again. A star is the first value past the
tolerance, a name the value that deviates most. The phantom's weights are shipped in float16: what
is left of storing them so is another order of the sums. The control is float32 once more, loaded
and compiled anew: every value must be equal, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np

import stable_diffusion_tf
from experiments.figures import precision as figures
from stable_diffusion_tf.errors import UsageError
from xray import script
from xray.compare import (
    BACKENDS,
    Asked,
    Comparison,
    by_part,
    compare,
    inputs_of,
    reads_of,
    reads_on,
)
from xray.options import EXAMPLE, Prompt, Sampling
from xray.report import Control, Report

PRECISIONS = ("bfloat16", "float16-storage")
Read = Callable[[], dict[str, np.ndarray]]  # all values of a variant, by address


@dataclass(frozen=True)
class Options(Sampling):
    prompt: Prompt = EXAMPLE
    """what to draw."""
    steps: int = 10
    guidance: float = 4.0
    pattern: str = "*"
    """glob of the values to compare; of a large model not all fit into memory at once."""
    tolerance: float = 1e-4
    """the relative difference from which on two values deviate."""

    def check(self) -> None:
        super().check()
        if not self.tolerance > 0:
            raise UsageError(f"a tolerance of {self.tolerance} is not above 0; try 1e-4")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    run = options.steps, options.guidance, options.seed
    asked = inputs_of(sd, options.prompt, *run)
    exact = reads_of(sd, asked, options.pattern)
    load = partial(reads_again, options.weights, asked, options.pattern)
    control = compare(load("float32"), exact, exact, options.tolerance)
    ways = variants(sd.backend, load, options.weights, asked, options.pattern)
    found = {n: compare(read(), exact, exact, options.tolerance) for n, read in ways.items()}
    table = [
        {"variant": name, "part": part, "off by": f"{row.difference:.1e}", "at": row.address}
        for name, comparison in found.items()
        for part, row in by_part(comparison).items()
    ]
    finding, furthest = find(found), {name: one.furthest.difference for name, one in found.items()}
    same = not control.furthest.difference
    return Report(
        finding,
        Control("float32 again", control.verdict, same, "float32 differs from itself"),
        numbers=furthest | {f"{name}, first": one.verdict for name, one in found.items()},
        table=table,
        figure=figures.parting_curves(found, finding),
        tensors={name: np.array([row[1] for row in one.rows]) for name, one in found.items()},
    )


def reads_again(weights: str, asked: Asked, pattern: str, precision: str) -> dict[str, np.ndarray]:
    """What the model holds when it is loaded anew, on the same backend."""
    return reads_of(script.load_model(weights, precision), asked, pattern)


def variants(own: str, load: Callable, weights: str, asked: Asked, pattern: str) -> dict[str, Read]:
    """Name → what reads all values; other backends where they are installed."""
    others = [backend for backend in BACKENDS if backend != own and find_spec(backend)]
    return {name: partial(load, name) for name in PRECISIONS} | {
        BACKENDS[name]: partial(reads_on, name, asked, weights, pattern=pattern) for name in others
    }


def find(comparisons: dict[str, Comparison]) -> str:
    """Which variant deviates most and where, and how far the others do."""
    furthest = {name: comparison.furthest for name, comparison in comparisons.items()}
    *_, second, first = sorted(furthest, key=lambda name: furthest[name].difference)
    most, rest = (f"{100 * furthest[name].difference:.2g} %" for name in (first, second))
    part = furthest[first].part
    where = f"by {most} in the {part}; the others by {rest} at most."
    return f"{first} deviates most from float32, {where}"


if __name__ == "__main__":
    script.run_experiment(main, Options)
