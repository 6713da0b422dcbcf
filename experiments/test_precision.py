"""Where do bfloat16, float16 storage and the other backends part from float32?

Text encoder, UNet and decoder are called once each, on the same inputs in every variant: a prompt,
a latent half way through a run, and the latent where it ends. Every value inside is compared with
that of float32 at the same address. The curves show the relative difference over the order of
execution: a step up is a layer that loses much, a slow climb is rounding that adds up, and where
a norm or a softmax takes the scale out, a curve may fall again. The phantom's weights are shipped
in float16, so storing them so loses nothing: what is left there is another order of the sums. The
control is float32 once more, loaded and compiled anew: every value must be equal, bit for bit.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from experiments.figures import precision as figures
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.lcm import guidance_embedding
from xray import script
from xray.compare import (
    BACKENDS,
    Asked,
    Comparison,
    Row,
    by_part,
    compare,
    reads_of,
    reads_on,
)

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

EXAMPLE = "a rabbit left of a strawberry on a purple background"
PRECISIONS = ("bfloat16", "float16-storage")


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLE,
    /,
    steps: int = 10,
    guidance: float = 4.0,
    seed: int = 0,
    pattern: str = "*",
    tolerance: float = 1e-4,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Every value of float32 beside those of other precisions and backends.

    Args:
        prompt: what to draw.
        steps: of the run whose middle and end are looked at.
        guidance: how far the words' share is exaggerated.
        seed: draws the noise.
        pattern: the values to compare; of a large model not all fit into memory at once.
        tolerance: the relative difference from which on two values part.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    if not tolerance > 0:
        raise UsageError(f"a tolerance of {tolerance} is not above 0; try 1e-4")
    sd = script.load_model(weights)
    asked = find_inputs(sd, prompt, steps, guidance, seed)
    exact = reads_of(sd, asked, pattern)
    folder = script.make_folder(out, "test_precision", prompt)
    with script.saving_into(folder):
        control = compare(reads_again(weights, "float32", asked, pattern), exact, exact, tolerance)
        found = {}
        for name, read in variants(sd.backend, weights, asked, pattern).items():
            found[name] = compare(read(), exact, exact, tolerance)
            (folder / f"{name}.txt").write_text(f"{found[name]}\n", encoding="utf-8")
            tell(name, found[name])
        figure = figures.parting_curves(found, finding(found))
        script.save_figure(figure, folder / "parting.png")
    script.conclude(
        finding(found),
        f"float32 again: {control.verdict}",
        picture=folder / "parting.png",
        tables=folder,
    )
    if control.furthest.difference:
        raise SystemExit("the control failed: float32 differs from itself")


def find_inputs(
    sd: "StableDiffusion", prompt: str, steps: int, guidance: float, seed: int
) -> Asked:
    """What each network is given: token ids, the latent of the step half way, that of the end."""
    ids = sd.tokenize([prompt, ""])
    context, uncond = np.split(sd.function("text_encoder")(ids), 2)
    taken = list(sd.denoise(context, uncond, steps, guidance, seed=seed))
    half, both = taken[len(taken) // 2], np.concatenate([uncond, context])
    times, width = np.full(2, half.t, np.int32), sd.unet_config.time_cond_proj_dim
    told = [guidance_embedding(guidance, width).repeat(2, axis=0)] if width else []  # an LCM
    return {
        "text_encoder": (ids,),
        "unet": (np.repeat(half.x, 2, axis=0), times, both, *told),
        "decoder": (taken[-1].x_prev / np.float32(sd.vae_config.scaling_factor),),
    }


def reads_again(weights: str, precision: str, asked: Asked, pattern: str) -> dict[str, np.ndarray]:
    """What the model holds when it is loaded anew, on the same backend."""
    return reads_of(script.load_model(weights, precision), asked, pattern)


def variants(
    own: str, weights: str, asked: Asked, pattern: str
) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    """Name → what reads all values; other backends where they are installed."""
    precisions = {p: partial(reads_again, weights, p, asked, pattern) for p in PRECISIONS}
    others = [backend for backend in BACKENDS if backend != own and find_spec(backend)]
    return precisions | {
        BACKENDS[backend]: partial(reads_on, backend, asked, weights, pattern=pattern)
        for backend in others
    }


def tell(name: str, comparison: Comparison) -> None:
    worst = comparison.furthest
    print(f"{name}: {len(comparison.rows)} values, at most {worst.difference:.1e} apart, at")
    print(f"  {worst.address}\n  {comparison.verdict}")
    for part, row in by_part(comparison).items():
        print(f"  {part:14} {row.difference:.1e}")


def finding(comparisons: dict[str, Comparison]) -> str:
    """The title: which variant parts most and where, and how far the others do."""
    furthest = {name: comparison.furthest for name, comparison in comparisons.items()}
    *_, second, first = sorted(furthest, key=lambda name: furthest[name].difference)
    return (
        f"{first} parts furthest from float32, by {size(furthest[first])} "
        f"({furthest[first].part}); the others by {size(furthest[second])} at most"
    )


def size(row: Row) -> str:
    return f"{100 * row.difference:.1f} %" if row.difference >= 1e-3 else f"{row.difference:.1e}"


if __name__ == "__main__":
    script.run(main)
