"""Is there a picture between two prompts?

The vectors of a prompt A are led over to those of a prompt B in even steps, each of the 77 tokens
by itself: in a straight line, which cuts through the sphere that the vectors lie near (the text
encoder ends in a normalisation), or along the sphere. Each point is drawn from the same noise.

The strips show one noise. The curves are means over the noises, with standard errors: how far the
pictures are from A's and from B's, and how far each is from the one before it. If pictures changed
as evenly as the vectors do, each step would be on the dashed line; a peak is where the picture
jumps. For the phantom, the judge says which pictures show what A names, or B, or neither.

The phantom has seen a few dozen things and nothing between them; SD 1.x, whose words have many more
neighbours, may have more to show there. The control: both ends of both ways must be the pictures
that A and B give themselves, bit for bit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures.interpolation import Panel, distance_panels, way_sheet
from phantom.prompts import shown
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import script
from xray.measure import standard_error
from xray.methods.drawing import decode, draw
from xray.methods.interpolation import (
    WAYS,
    Along,
    jumps,
    largest_step,
    measure_along,
    shares_of,
    walk_tokens,
)

EXAMPLES = ("a rabbit on a purple background", "a burger on a green background")


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLES[0],
    other: Annotated[str, tyro.conf.Positional] = EXAMPLES[1],
    /,
    points: int = 9,
    pictures: int = 4,
    steps: int = 10,
    guidance: float = 7.5,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """From one prompt to another in small steps, straight and along the sphere.

    Args:
        prompt: A, where the way begins.
        other: B, where it ends.
        points: of the way, both ends included, 3 to 33.
        pictures: noises that each point is drawn from, 2 to 64.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated.
        seed: draws the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("points", points, 3, 33, 9)
    script.check_range("pictures", pictures, 2, 64, 4)
    sd = script.load_model(weights)
    a, b, uncond = sd.encode_text([prompt, other, ""])
    if np.array_equal(a, b):
        raise UsageError("both prompts are the same to the model; try 'a cat' and 'a dog'")
    shares = shares_of(points)
    contexts = {name: walk_tokens(a, b, way, shares) for name, way in WAYS.items()}
    run = {"uncond": uncond[None], "steps": steps, "guidance": guidance}
    noise = np.repeat(sd.draw_noise(seed, pictures)[:, None], points, 1)  # (b, points, h, w, c)
    sd.denoise(a[None], latent=noise[0], **run)  # not begun: it looks
    folder = script.make_folder(out, "text_image_interpolation", f"{prompt} to {other}")
    with script.saving_into(folder):
        latents = {
            way: np.stack([draw(sd, some, one, run) for one in noise], 1)  # (points, b, h, w, c)
            for way, some in contexts.items()
        }
        ends = draw(sd, np.stack([a] * (points - 1) + [b]), noise[0], run)[[0, -1]]
        images = {way: np.stack([decode(sd, p) for p in some]) for way, some in latents.items()}
        along = {way: measure_along(some) for way, some in images.items()}
        seen = {way: judge_all(some, prompt, other) for way, some in images.items()}
        title = finding(along, seen)
        panels = distance_panels(along, {w: measure_along(some) for w, some in latents.items()})
        strips = {way: some[:, 0] for way, some in images.items()}
        heading = f"A: “{prompt}”, B: “{other}”\n{title}"
        sheet = way_sheet(strips, shares, [*panels, *judge_panels(seen)], heading)
        script.save_figure(sheet, folder / "way.png")
        arrays = {f"{way.replace(' ', '_')}.contexts": some for way, some in contexts.items()}
        arrays |= {f"{way.replace(' ', '_')}.latents": some for way, some in latents.items()}
        save_file(arrays, folder / "way.safetensors")
    tell(shares, along, seen)
    same = all(np.array_equal(some[[0, -1], 0], ends) for some in latents.values())
    script.conclude(
        title,
        f"the ends are A's and B's own pictures: {'' if same else 'not '}bit for bit",
        picture=folder / "way.png",
        tensors=folder / "way.safetensors",
    )
    if not same:
        raise SystemExit("the control failed: the way does not lead from A to B")


# --- judging, telling --------------------------------------------------------------------------


def judge_all(images: np.ndarray, prompt: str, other: str) -> dict[str, np.ndarray]:
    """Whose things and background a picture shows → (points, b) bool; none where nobody can say.
    images: (points, b, H, W, 3) in [-1, 1]."""
    found = {}
    for who, wanted in (("A", prompt), ("B", other)):
        verdicts = [shown(to_uint8(some), wanted) for some in images]
        if verdicts[0] is None:
            return {}
        found[who] = np.stack(verdicts)
    return found


def judge_panels(seen: Mapping[str, Mapping[str, np.ndarray]]) -> list[Panel]:
    """One, or none where nobody could judge."""
    curves = {
        f"{who}'s, {way}": 100.0 * hits for way, both in seen.items() for who, hits in both.items()
    }
    return [Panel("whose picture is it?", "judged so, %", curves)] if curves else []


def tell(
    shares: list[float],
    along: Mapping[str, Along],
    seen: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    for way, one in along.items():
        print(f"{way}: share of B, RMS from A, from B, from the last in % of full scale")
        for i, share in enumerate(shares):
            far = "".join(f"{50 * values[i].mean():9.1f}" for values in one)
            hits = [f"{who} in {some[i].sum()}" for who, some in seen[way].items()]
            judged = f"   judged {', '.join(hits)} of {one.from_a.shape[1]}" if hits else ""
            print(f"{share:8.3f}{far.replace('nan', '  –')}{judged}")


def finding(along: Mapping[str, Along], seen: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """How much of the way is made in one step, and whether anything is neither A's nor B's."""
    parts = {way: largest_step(one)[1] for way, one in along.items()}
    told = [f"{percent(part)} % {way}" for way, part in parts.items()]
    points = len(along["straight"].from_a)
    verb = "jumps" if jumps(np.mean([*parts.values()], axis=0), points) else "glides"
    said = f"The picture {verb}: of all it changes, one step makes {', '.join(told)}"
    said += f" (even steps: {100 / (points - 1):.0f} %)"
    if not all(seen.values()):
        return said
    inner = np.stack([(both["A"] | both["B"])[1:-1] for both in seen.values()])
    return f"{said}; {np.sum(~inner)} of {inner.size} pictures in between show neither A nor B"


def percent(values: np.ndarray) -> str:
    return f"{100 * values.mean():.0f} ± {100 * standard_error(values):.0f}"


if __name__ == "__main__":
    script.run(main)
