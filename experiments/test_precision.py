"""Where do bfloat16, float16 storage and the other backends deviate from float32?

Text encoder, UNet and decoder are called once each, on the same inputs in every variant: a prompt,
a latent half way through a run, and the latent where it ends. Every value inside is compared with
that of float32 at the same address: max|a − b| / max|b|. The curves show it over the order of
execution: a step up is a layer that loses much, a slow climb is rounding that adds up, and where a
norm or a softmax takes the scale out, a curve may fall again. A star is the first value past the
tolerance, a name the value that deviates most. Below is what each precision draws. The phantom's
weights are shipped in float16: storing them so leaves another order of the sums. --backend openvino
adds int8-storage. The control is float32 once more, loaded and compiled anew: every bit must be
equal.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

import stable_diffusion_tf
from experiments.figures import precision as figures
from stable_diffusion_tf.errors import UsageError
from xray import script
from xray.compare import BACKENDS, Asked, Comparison, backends, by_part, compare
from xray.options import EXAMPLE, Prompt, Sampling
from xray.report import Control, Report


@dataclass(frozen=True)
class Options(Sampling):
    prompt: Prompt = EXAMPLE
    """what to draw."""
    steps: int = 10
    guidance: float = 4.0
    pattern: str | None = None
    """globs of the values to compare; by default all, of a large model what its blocks give out."""
    tolerance: float = 1e-4
    """the relative difference from which on two values deviate."""

    def check(self) -> None:
        super().check()
        if self.precision != "float32":
            raise UsageError("every precision is held against float32; leave --precision out")
        if not self.tolerance > 0:
            raise UsageError(f"a tolerance of {self.tolerance} is not above 0; try 1e-4")


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    asked = backends.inputs_of(sd, options.prompt, options.steps, options.guidance, options.seed)
    pattern = options.pattern or backends.worth_comparing(sd)
    exact = backends.reads_of(sd, asked, pattern)
    found, pictures = {}, {}
    for name in stable_diffusion_tf.precisions.precisions(sd.backend):
        reads, pictures[name] = seen_again(sd, options, asked, pattern, name)
        found[name] = compare(reads, exact, exact, options.tolerance)
        del reads  # which may be a gigabyte, before the next are read
    control = found.pop("float32")
    for name in others_of(sd.backend):
        reads = backends.reads_on(name, asked, options.weights, pattern=pattern)
        found[BACKENDS[name]] = compare(reads, exact, exact, options.tolerance)
        del reads
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
        figure=figures.parting_curves(found, pictures, finding),
        tensors={name: np.array([row[1] for row in one.rows]) for name, one in found.items()},
    )


def others_of(backend: str) -> list[str]:
    """The other backends that are installed."""
    return [name for name in BACKENDS if name != backend and find_spec(name)]


def seen_again(
    sd: "stable_diffusion_tf.StableDiffusion",
    options: Options,
    asked: Asked,
    pattern: str,
    precision: str,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the model holds, and what it draws, (H, W, 3), when it is loaded anew."""
    other = sd.loaded_anew(precision)
    run = {name: getattr(options, name) for name in ("steps", "guidance", "seed")}
    return backends.reads_of(other, asked, pattern), other.generate(options.prompt, **run)[0]


def find(comparisons: dict[str, Comparison]) -> str:
    """Which variant deviates most and where, and how far the others do."""
    furthest = {name: comparison.furthest for name, comparison in comparisons.items()}
    *_, second, first = sorted(furthest, key=lambda name: furthest[name].difference)
    most, rest = (f"{100 * furthest[name].difference:.2g} %" for name in (first, second))
    part = furthest[first].part
    where = f"by {most} in the {part}; the others by {rest} at most."
    return f"{first} deviates most from float32, {where}"


if __name__ == "__main__":
    # models in turn, and TensorFlow's own allocator would keep what each took; this is slower
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    script.run_experiment(main, Options)
