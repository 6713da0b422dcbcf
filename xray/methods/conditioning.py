"""What the UNet hears, the time and the words, swapped in some blocks or some steps of a run."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .drawing import draw

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from stable_diffusion_tf.sampling import Step

HEARD = {  # pattern → what comes in there: it depends on nothing else
    "unet.*.time_emb_proj": "time",
    "unet.*.attn2.to_k": "words",
    "unet.*.attn2.to_v": "words",
}
KINDS = {"words": "the other words", "noisier": "a noisier time", "cleaner": "a cleaner time"}
BLOCK = re.compile(r"unet\.(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.")

Values = Mapping[str, np.ndarray]  # address → (rows of the batch, …)


class Swap(NamedTuple):
    """In place of its own time or words the UNet hears others, in one block or one step, if said.

    kind: 'words', of another prompt; 'noisier' or 'cleaner', the time of another step; 'itself'.
    """

    kind: str
    block: str | None = None
    step: int | None = None


def find_blocks(sd: "StableDiffusion") -> list[str]:
    """The blocks that hear the time or the words, in order of execution."""
    from xray.probe import taps

    found = (BLOCK.match(tap.address) for tap in taps(sd) if kind_of(tap.address))
    return list(dict.fromkeys(match[1] for match in found))


def kind_of(address: str) -> str | None:
    from xray.probe.addresses import matches

    return next((kind for pattern, kind in HEARD.items() if matches(pattern, address)), None)


def list_swaps(blocks: Sequence[str], steps: int) -> list[Swap]:
    """Of each kind one everywhere, one for each block alone and one for each step alone."""
    where = [(None, None), *((b, None) for b in blocks), *((None, s) for s in range(steps))]
    return [Swap(kind, *at) for kind in KINDS for at in where]


class Ears(NamedTuple):
    """All that can be heard in a run, as a batch of one shape hears it."""

    own: Values  # the words of the prompt
    other: Values  # those of the other one
    times: Mapping[int, Values]
    steps: Mapping[str, np.ndarray]  # kind → the time that each step hears, (steps,)


def heard_times(times: np.ndarray, shift: int, last: int) -> dict[str, np.ndarray]:
    """Kind → the time that is heard in each step, (steps,): its own, or that of `shift` steps
    before or after, by the same stride beyond the ends of the run, and never beyond the table's."""
    stride = int(times[0] - times[1]) if len(times) > 1 else last // 2
    noisier, cleaner = (np.clip(times + way * shift * stride, 0, last) for way in (1, -1))
    return {"itself": times, "words": times, "noisier": noisier, "cleaner": cleaner}


def listen(
    sd: "StableDiffusion",
    contexts: np.ndarray,
    uncond: np.ndarray,
    noise: np.ndarray,
    steps: Mapping[str, np.ndarray],
) -> Ears:
    """Reads what comes in for two contexts (2, 77, width) and for all times, in a batch of this
    shape, as it will be swapped: another shape may round otherwise."""
    from xray.probe import Probe
    from xray.probe.instrumented import instrument

    x, none = np.concatenate([noise, noise]), np.repeat(uncond, len(noise), 0)
    words = [np.concatenate([none, np.repeat(one[None], len(noise), 0)]) for one in contexts]
    needed = np.unique(np.concatenate([*steps.values()])).tolist()
    seen = instrument(sd, Probe([*HEARD]))

    def read(t: int, context: np.ndarray, kind: str) -> Values:
        seen.predict_noise(x, t, context)
        return {name: value for name, value in seen.reads.items() if kind_of(name) == kind}

    times = {t: read(t, words[0], "time") for t in needed}
    own, other = (read(needed[0], context, "words") for context in words)
    return Ears(own, other, times, steps)


def swap_all(
    sd: "StableDiffusion",
    jobs: Sequence[tuple[Swap, int]],
    noise: np.ndarray,
    context: np.ndarray,
    ears: Ears,
    run: dict,
) -> np.ndarray:
    """Where runs end in each of which something is swapped, (jobs, h, w, 4), a batch at a time.

    jobs: what is swapped, and from which noise; noise: (batch, h, w, 4); context: (1, 77, width).
    """
    from xray.probe import Edit, Feed, PerStep
    from xray.probe.instrumented import instrument

    batch, feed, ended = len(noise), Feed(), []
    contexts = np.repeat(context, batch, 0)
    swapped = instrument(sd, edits=Edit([*HEARD], source=feed))
    for start in range(0, len(jobs), batch):
        some = [*jobs[start : start + batch]]
        some += [(Swap("itself"), 0)] * (batch - len(some))
        feed(PerStep(partial(hear, ears, [swap for swap, _ in some]), run["steps"]))
        ended.append(draw(swapped, contexts, noise[[row for _, row in some]], run))
    return np.concatenate(ended)[: len(jobs)]


def hear(ears: Ears, swaps: Sequence[Swap], step: int) -> dict[str, np.ndarray]:
    """What each row of a batch hears in a step: address → (2 · batch, …)."""
    own = ears.times[int(ears.steps["itself"][step])]
    heard = {address: value.copy() for address, value in {**ears.own, **own}.items()}
    for row, swap in enumerate(swaps):
        if swap.step not in (None, step):
            continue
        given = {**ears.times[int(ears.steps[swap.kind][step])]}
        given |= ears.other if swap.kind == "words" else {}
        for address, value in given.items():
            if swap.block in (None, BLOCK.match(address)[1]):
                rows = slice(row, None, len(swaps))  # of both halves
                heard[address][rows] = value[rows]
    return heard


# --- how far -----------------------------------------------------------------------------------


def apart(latents: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The RMS of how far latents are from others, (…, h, w, c) → (…)."""
    return np.sqrt(np.mean((latents - ends) ** 2, axis=(-3, -2, -1)))


def between(ends: np.ndarray) -> float:
    """How far latents (n, h, w, c) are from one another, the mean over all pairs."""
    n = len(ends)
    return float(apart(ends[:, None], ends[None]).sum() / (n * (n - 1)))


# --- scale and offset --------------------------------------------------------------------------


class Fit(NamedTuple):
    """How features differ from others, channel by channel: what ≈ scale · base + offset."""

    scale: np.ndarray  # (c,)
    offset: np.ndarray  # (c,) in standard deviations of the channel
    explained: float  # the share of the change that scale and offset account for; from 0 to 1
    change: float  # RMS of the change, in standard deviations of the base


def fit_channels(base: np.ndarray, features: np.ndarray) -> Fit:
    """By least squares over pictures and cells; both (n, h, w, c)."""
    x, y = (np.asarray(f, np.float64).reshape(-1, f.shape[-1]) for f in (base, features))
    deviation = np.where(x.std(0) > 0, x.std(0), 1.0)
    x, y = (x - x.mean(0)) / deviation, (y - x.mean(0)) / deviation  # both as the base is
    scale, offset = (x * y).mean(0), y.mean(0)
    rest, change = np.sum((y - scale * x - offset) ** 2), np.sum((y - x) ** 2)
    explained = 1 - rest / change if change else np.nan
    return Fit(scale, offset, float(explained), float(np.sqrt(change / x.size)))


def fit_decoder(
    sd: "StableDiffusion", step: "Step", contexts: np.ndarray, heard: dict[str, np.ndarray]
) -> dict[str, dict[str, Fit]]:
    """Block of the decoder → kind → how its features change for the latents of a step, if the UNet
    hears the second of two contexts (2, 77, width) or another time."""
    from xray.probe.instrumented import instrument

    n, times = len(step.x), [heard[kind][step.index] for kind in ("itself", *KINDS)]
    told = np.repeat(contexts[[0, 1, 0, 0]], n, 0)
    seen = instrument(sd, "unet.up_blocks.?")
    seen.predict_noise(np.concatenate([step.x] * 4), np.repeat(times, n), told)
    fits = {}
    for address, features in seen.reads.items():
        base, *changed = np.split(features, 4)
        found = (fit_channels(base, one) for one in changed)
        fits[address.removeprefix("unet.")] = dict(zip(KINDS.values(), found, strict=True))
    return fits
