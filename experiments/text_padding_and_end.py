"""Do the end and padding vectors carry the prompt?

CLIP reads 77 tokens whatever the prompt: a start, the words, an end, and padding up to the last.
Each token has heard those before it, so the end and the padding know the whole prompt, and the
UNet attends to all 77 vectors. Here spans of the vectors of a prompt A are replaced by those of B,
and pictures are drawn from the same noises. Where the prompts differ in length, the padding is cut
or its last vector repeated; that is sound, as cross-attention does not know the order of tokens.

Read the sheet row by row: what was taken from B, some pictures, and how far they have gone from
A's picture of that noise (0 %) to B's (100 %): d(A) / (d(A) + d(B)), d the distance of latents. On
the phantom also how many show what A names, and what B names. Lines are standard errors over the
noises; they say nothing of other prompts.

In SD 1.x, whose CLIP was trained alone, the end outweighs the words (arXiv 2405.15330); whether
padding is used depends on how the text encoder was trained (arXiv 2501.06751). The phantom's was
taught by who read all 77 vectors of short captions: nearly all that they ever saw was padding.

The control: the start token has heard nothing, so taking it from B must give A's pictures bit for
bit, and taking everything must give B's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from safetensors.numpy import save_file

from experiments.figures import padding_and_end as figures
from phantom.judge import judge
from phantom.prompts import asked, has
from phantom.world import SIDE
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from stable_diffusion_tf.tokenizer import EOS
from xray import script
from xray.measure import distance, exceeds, standard_error
from xray.methods.drawing import decode, draw

EXAMPLES = ("a rabbit on a purple background", "a burger on a green background")
PARTS = ("start", "words", "end", "early padding", "late padding")
SWAPS = {  # what the sheet calls it → the parts that come from B
    "nothing": (),
    "start": ("start",),
    "words": ("words",),
    "end": ("end",),
    "half of the padding": ("early padding",),
    "padding": ("early padding", "late padding"),
    "end and padding": ("end", "early padding", "late padding"),
    "everything": PARTS,
}
SHOWN = 4  # pictures in a row of the sheet


def main(
    prompt: Annotated[str, tyro.conf.Positional] = EXAMPLES[0],
    other: Annotated[str, tyro.conf.Positional] = EXAMPLES[1],
    /,
    pictures: int = 8,
    steps: int = 10,
    guidance: float = 7.5,
    seed: int = 0,
    weights: str = "phantom",
    out: Path = Path("outputs"),
) -> None:
    """Give a prompt the end, the padding, or the words of another.

    Args:
        prompt: A, whose vectors are replaced.
        other: B, where they are taken from.
        pictures: drawn with each swap, 2 to 64.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated.
        seed: draws the noise.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    script.check_range("pictures", pictures, 2, 64, 8)
    sd = script.load_model(weights)
    texts = np.concatenate([sd.encode_text([text]) for text in (prompt, other, "")])
    a, b = (split(*both) for both in zip(texts[:2], sd.tokenize([prompt, other]), strict=True))
    check(a, b)
    contexts = {name: compose(a, b, taken) for name, taken in SWAPS.items()} | {"B": texts[1]}
    run = {"uncond": texts[2:], "steps": steps, "guidance": guidance}
    noise = sd.draw_noise(seed, pictures)
    sd.denoise(texts[:1], latent=noise, **run)  # not begun: it looks
    folder = script.make_folder(out, "text_padding_and_end", prompt)
    with script.saving_into(folder):
        many = {name: np.repeat(one[None], pictures, 0) for name, one in contexts.items()}
        latents = {name: draw(sd, same, noise, run) for name, same in many.items()}
        images = np.stack([to_uint8(decode(sd, latents[name])) for name in SWAPS])
        gone, shares = lean(latents), follow(images, prompt, other)
        title = finding(gone, shares)
        heading = f"A: “{prompt}”, B: “{other}”\n{title}"
        sheet = figures.swap_sheet(images[:, :SHOWN], gone, shares, heading)
        script.save_figure(sheet, folder / "swaps.png")
        saved = {"contexts": np.stack([*contexts.values()]), "pictures": images}
        saved["latents"] = np.stack([*latents.values()])
        save_file(saved, folder / "swaps.safetensors")
    tell(gone, shares)
    unmoved = np.array_equal(latents["start"], latents["nothing"])
    arrived = np.array_equal(latents["everything"], latents["B"])
    same = [f"{'' if met else 'not '}bit for bit" for met in (unmoved, arrived)]
    script.conclude(
        title,
        f"with B's start alone A's pictures, {same[0]}; with all of B B's, {same[1]}",
        picture=folder / "swaps.png",
        tensors=folder / "swaps.safetensors",
    )
    if not (unmoved and arrived):
        raise SystemExit("the control failed: the start token says something, or a swap is wrong")


# --- swapping ----------------------------------------------------------------------------------


def split(context: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The vectors of a prompt, (77, width), by what their tokens are, ids (77,)."""
    end = int(np.argmax(ids == EOS))
    half = (end + 1 + len(ids)) // 2
    return dict(zip(PARTS, np.split(context, [1, end, end + 1, half]), strict=True))


def compose(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], taken: Sequence[str]
) -> np.ndarray:
    """A's vectors, (77, width), with these parts taken from B."""
    row = np.concatenate([(b if part in taken else a)[part] for part in PARTS])
    length = sum(map(len, a.values()))
    return row[np.minimum(np.arange(length), len(row) - 1)]


def check(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> None:
    """Raises UsageError where there is nothing to swap."""
    if min(len(prompt["early padding"]) for prompt in (a, b)) == 0:
        raise UsageError("a prompt is so long that it leaves no padding; try 'a cat' and 'a dog'")
    if np.array_equal(compose(a, b, PARTS), compose(a, b, ())):
        raise UsageError("both prompts are the same to the model; try 'a cat' and 'a dog'")


# --- measuring ---------------------------------------------------------------------------------


def lean(latents: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far each picture has gone from that of nothing swapped, 0, to B's, 1: swap → (b,)."""
    left = {name: distance(latents[name], latents["nothing"]) for name in latents if name != "B"}
    return {n: far / (far + distance(latents[n], latents["B"])) for n, far in left.items()}


def follow(images: np.ndarray, prompt: str, other: str) -> dict[str, dict[str, np.ndarray]]:
    """What is judged → whose → whether each picture shows it, (swaps, pictures) bool; none where
    it cannot be judged. images: (swaps, pictures, H, W, 3) uint8."""
    if images.shape[2:4] != (SIDE, SIDE):
        return {}
    (things_a, ground_a), (things_b, ground_b) = asked(prompt), asked(other)
    findings = [[judge(i, max(len(things_a), len(things_b))) for i in row] for row in images]
    tests = {
        "thing": (lambda found, wanted: has(found, wanted, set()), things_a, things_b),
        "background": (lambda found, wanted: found.background in wanted, ground_a, ground_b),
    }
    return {
        what: {
            who: np.array([[test(found, wanted) for found in row] for row in findings])
            for who, wanted in (("A", a), ("B", b))
        }
        for what, (test, a, b) in tests.items()
        if a and b and a != b
    }


# --- telling -----------------------------------------------------------------------------------


def tell(gone: Mapping[str, np.ndarray], shares: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    judged = {f"{who}'s {what}": shares[what][who] for what in shares for who in shares[what]}
    print(f"{'taken from B':20}{'way to B, %':>14}" + "".join(f"{name:>16}" for name in judged))
    for i, (name, way) in enumerate(gone.items()):
        counts = [f"{hits[i].sum()} of {len(way)}" for hits in judged.values()]
        print(f"{name:20}{percent(way):>14}" + "".join(f"{count:>16}" for count in counts))


def percent(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} ± {100 * standard_error(values):.1f}"


def finding(gone: Mapping[str, np.ndarray], shares: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Which of words, end and padding leads the pictures farthest to B, if one does."""
    first, second, third = sorted(("words", "end", "padding"), key=lambda name: -gone[name].mean())
    verb = "carry" if first == "words" else "carries"
    clear = exceeds(gone[first], gone[second])
    said = f"The {first} {verb} most of the prompt" if clear else "No span alone carries most"
    counted = ""
    if "thing" in shares:
        hits = shares["thing"]["B"][[*SWAPS].index(first)]
        counted = f" ({hits.sum()} of {len(hits)} pictures show B's thing)"
    ways = [f"the {name} {percent(gone[name])} %" for name in (second, third)]
    led = f"B's {first} alone leads {percent(gone[first])} % of the way to B's pictures{counted}"
    return ", ".join([f"{said}: {led}", *ways])


if __name__ == "__main__":
    script.run(main)
