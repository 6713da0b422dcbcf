"""What the UNet is conditioned on, the timestep and the prompt, swapped in some blocks or steps."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError

from .drawing import draw, parts_that_fit

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

CONDITIONS = {  # pattern → what comes in there: it depends on nothing else
    "unet.*.time_emb_proj": "time",
    "unet.*.attn2.to_k": "words",
    "unet.*.attn2.to_v": "words",
}
KINDS = {
    "words": "the other prompt",
    "noisier": "a noisier timestep",
    "cleaner": "a cleaner timestep",
}
BLOCK = re.compile(r"unet\.(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.")

Values = Mapping[str, np.ndarray]  # address → (rows of the batch, …)


class Swap(NamedTuple):
    """In place of its own time or words the UNet is given others, in one block or step, if said.

    kind: 'words', of another prompt; 'noisier' or 'cleaner', the time of another step; 'itself'.
    """

    kind: str
    block: str | None = None
    step: int | None = None

    @property
    def where(self) -> str:
        """'down block 0', 'step 1', or 'all'."""
        if self.step is not None:
            return f"step {self.step + 1}"
        name = self.block or "all"
        return name.replace("_blocks.", " block ").replace("_", " ")


def find_blocks(sd: "StableDiffusion", pattern: str = "*") -> list[str]:
    """The blocks that are conditioned on either, in order of execution. pattern: a glob of their
    names, as mid_block; raises UsageError where it means none."""
    from xray.probe import taps

    found = (BLOCK.match(tap.address) for tap in taps(sd) if kind_of(tap.address))
    known = list(dict.fromkeys(match[1] for match in found))
    if chosen := [block for block in known if fnmatchcase(block, pattern)]:
        return chosen
    raise UsageError(f"no block {pattern}; --blocks is a glob of {', '.join(known)}")


def kind_of(address: str) -> str | None:
    from xray.probe.addresses import matches

    return next((kind for pattern, kind in CONDITIONS.items() if matches(pattern, address)), None)


def list_swaps(blocks: Sequence[str], steps: int) -> list[Swap]:
    """Of each kind one everywhere, one for each block alone and one for each step alone."""
    where = [(None, None), *((b, None) for b in blocks), *((None, s) for s in range(steps))]
    return [Swap(kind, *at) for kind in KINDS for at in where]


class Conditions(NamedTuple):
    """All that a run can be conditioned on, in a batch of one shape."""

    own: Values  # the words of the prompt
    other: Values  # those of the other one
    times: Mapping[int, Values]
    steps: Mapping[str, np.ndarray]  # kind → the time that each step is given, (steps,)


def shifted_times(times: np.ndarray, shift: int, last: int) -> dict[str, np.ndarray]:
    """Kind → the timestep that each step gets, (steps,): its own, or that of `shift` steps
    before or after, by the same stride beyond the ends of the run, and never beyond the table's."""
    stride = int(times[0] - times[1]) if len(times) > 1 else last // 2
    noisier, cleaner = (np.clip(times + way * shift * stride, 0, last) for way in (1, -1))
    return {"itself": times, "words": times, "noisier": noisier, "cleaner": cleaner}


def read_conditions(
    sd: "StableDiffusion",
    contexts: np.ndarray,
    uncond: np.ndarray,
    noise: np.ndarray,
    steps: Mapping[str, np.ndarray],
) -> Conditions:
    """Reads what comes in for two contexts (2, 77, width) and for all times, in a batch of the
    shape in which it will be swapped: another shape may round otherwise."""
    from xray.probe import Probe
    from xray.probe.instrumented import instrument

    some = noise[parts_that_fit(sd, noise)[0]]
    x, none = np.concatenate([some, some]), np.repeat(uncond, len(some), 0)
    words = [np.concatenate([none, np.repeat(one[None], len(some), 0)]) for one in contexts]
    needed = np.unique(np.concatenate([*steps.values()])).tolist()
    seen = instrument(sd, Probe([*CONDITIONS]))

    def read(t: int, context: np.ndarray, kind: str) -> Values:
        seen.predict_noise(x, t, context)
        return {name: value for name, value in seen.reads.items() if kind_of(name) == kind}

    times = {t: read(t, words[0], "time") for t in needed}
    own, other = (read(needed[0], context, "words") for context in words)
    return Conditions(own, other, times, steps)


def swap_all(
    sd: "StableDiffusion",
    jobs: Sequence[tuple[Swap, int]],
    noise: np.ndarray,
    context: np.ndarray,
    known: Conditions,
    run: dict,
) -> np.ndarray:
    """Where runs end in each of which something is swapped, (jobs, h, w, 4), a batch at a time.

    jobs: what is swapped, and from which noise; noise: (b, h, w, 4); context: (1, 77, width).
    """
    from xray.probe import Edit, Feed, PerStep
    from xray.probe.instrumented import instrument

    batch, feed, ended = len(parts_that_fit(sd, noise)[0]), Feed(), []
    contexts = np.repeat(context, batch, 0)
    swapped = instrument(sd, edits=Edit([*CONDITIONS], source=feed))
    for start in range(0, len(jobs), batch):
        some = [*jobs[start : start + batch]]
        some += [(Swap("itself"), 0)] * (batch - len(some))
        feed(PerStep(partial(mixed, known, [swap for swap, _ in some]), run["steps"]))
        ended.append(draw(swapped, contexts, noise[[row for _, row in some]], run))
    return np.concatenate(ended)[: len(jobs)]


def mixed(known: Conditions, swaps: Sequence[Swap], step: int) -> dict[str, np.ndarray]:
    """What each row of a batch is given in a step: address → (2 · batch, …)."""
    own = known.times[int(known.steps["itself"][step])]
    made = {address: value.copy() for address, value in {**known.own, **own}.items()}
    for row, swap in enumerate(swaps):
        if swap.step not in (None, step):
            continue
        given = {**known.times[int(known.steps[swap.kind][step])]}
        given |= known.other if swap.kind == "words" else {}
        for address, value in given.items():
            if swap.block in (None, BLOCK.match(address)[1]):
                rows = slice(row, None, len(swaps))  # of both halves
                made[address][rows] = value[rows]
    return made


# --- how far -----------------------------------------------------------------------------------


def apart(latents: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The RMS of how far latents are from others, (…, h, w, c) → (…)."""
    return np.sqrt(np.mean((latents - ends) ** 2, axis=(-3, -2, -1)))


def between(ends: np.ndarray) -> float:
    """How far latents (n, h, w, c) are from one another, the mean over all pairs."""
    n = len(ends)
    return float(apart(ends[:, None], ends[None]).sum() / (n * (n - 1)))
