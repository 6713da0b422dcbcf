"""Word → heat map: where the model attends to a word.

Cross-attention says of each latent position, in each layer, head and step, how much of its
attention a token gets. A heat map is what pooling leaves of that, as in DAAM (Tang et al., arXiv
2210.04885); every choice on the way is a field of `Pooling`. The start token, the end token and the
padding after it, which take most of the attention, keep maps of their own. An array of maps is
(…, rows, columns).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_diffusion_tf import scheduler
from stable_diffusion_tf.errors import UsageError
from xray.probe.addresses import dims_of, matches, patterns_of

from .pooling import (
    AGAINST,
    CROSS,
    DAAM,
    DEFAULT,
    HALVES,
    INSIDE,
    JOINS,
    NORMS,
    RESIZES,
    STEPS,
    WEIGHTS,
    Pooling,
)

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.probe.interventions import Probe, Reads

__all__ = [
    "DAAM",
    "DEFAULT",
    "INSIDE",
    "Pooling",
    "look",
    "looks_at",
    "maps",
    "word_maps",
    "words_at",
]

SPECIAL = ("<start>", "<end>", "<padding>")
TIMES = (900, 700, 500, 300, 100)  # to which a picture that exists is noised, as a run would go
AXES = (("head", "query", "token"), ("query", "token"))  # after the first: probed whole, or a mean

Shots = Any  # a Film; what an instrument read last; several such, one for each step
Words = Sequence[tuple[str, Sequence[int]]]  # as sd.tokenizer.words(prompt) lists them


# --- maps --------------------------------------------------------------------------------------


def maps(
    shots: Shots,
    tokens: Sequence[Sequence[int]] | None = None,
    pooling: Pooling = DEFAULT,
    grid: tuple[int, int] | None = None,
    shape: tuple[int, int] | None = None,
    picture: int = 0,
) -> np.ndarray:
    """The pooled attention that groups of tokens get, (groups, rows, columns) float64, held against
    nothing; see `word_maps` for that.

    shots: a film, what an instrument read last, or several such, one for each step, that hold
        `unet.*.attn2.probs`, whole or with Mean("head").
    tokens: the positions of each group among the 77; None: each by itself.
    grid: rows and columns of the result; None: those of the finest layer.
    shape: rows and columns of the latent; None: as the film says, and of reads that it is square.
    picture: which of a batch. Raises UsageError.
    """
    steps = [shots] if isinstance(shots, Mapping) else [*shots]
    chosen = layers_in(steps, pooling)
    shape = latent_shape(steps[0], shape)
    weights = step_weights(pooling, len(steps))
    seen = []
    for address in chosen:
        check_axes(axes_of(shots, steps[0], address), address, pooling)
        mean = sum(
            weight * looked_at(step[address], pooling, picture)
            for step, weight in zip(steps, weights, strict=True)
            if weight
        )  # (h·w, 77)
        seen.append(mean.reshape(*grid_of(len(mean), shape), -1))
    tokens = [[i] for i in range(seen[0].shape[-1])] if tokens is None else tokens
    check_tokens(tokens, seen[0].shape[-1])
    grid = grid or max((layer.shape[:2] for layer in seen), key=np.prod)
    shares = np.array([WEIGHTS[pooling.weight](layer[..., 0].size) for layer in seen], float)
    shares /= shares.sum()
    return sum(
        part * on_grid(layer, tokens, grid, pooling)
        for part, layer in zip(shares, seen, strict=True)
    )


def word_maps(
    shots: Shots,
    words: Words,
    pooling: Pooling = DEFAULT,
    grid: tuple[int, int] | None = None,
    shape: tuple[int, int] | None = None,
    picture: int = 0,
) -> dict[str, np.ndarray]:
    """Word → heat map (rows, columns), in the order of the prompt; a word that comes again is
    'word#2'. Last come '<start>', '<end>' and '<padding>', pooled, and held against nothing.

    words: sd.tokenizer.words(prompt), or what `phrases` makes of it. The rest is as in `maps`.
    """
    last = max((max(places) for _, places in words), default=0)
    length = token_count(shots)
    special = [[0], [last + 1], [*range(last + 2, length)]]
    special = special if special[-1] else special[:-1]
    found = maps(shots, [places for _, places in words] + special, pooling, grid, shape, picture)
    held = AGAINST[pooling.against](found[: len(words)], found[len(words)])
    names = numbered([word for word, _ in words])
    return dict(zip(names, held, strict=True)) | dict(
        zip(SPECIAL[: len(special)], found[len(words) :], strict=True)
    )


def step_maps(
    film: Shots,
    words: Words,
    pooling: Pooling = DEFAULT,
    grid: tuple[int, int] | None = None,
    shape: tuple[int, int] | None = None,
) -> list[dict[str, np.ndarray]]:
    """The `word_maps` of each step by itself, of a film or of what a run read."""
    alone = replace(pooling, steps="equal")
    return [word_maps(Some(film, [step]), words, alone, grid, shape) for step in film]


class Some(list):
    """Some steps of a film, with the names of its axes."""

    def __init__(self, film: Shots, steps: Sequence[Mapping[str, np.ndarray]]):
        super().__init__(steps)
        self.dims = film.dims


def words_at(found: Mapping[str, np.ndarray], row: int, column: int) -> list[tuple[str, float]]:
    """The words of `word_maps` at a position, the strongest first, each with its value there;
    without the maps of start, end and padding, which are on another scale. Raises UsageError."""
    rows, columns = next(iter(found.values())).shape
    if not (0 <= row < rows and 0 <= column < columns):
        raise UsageError(
            f"no position {row}, {column}: rows are 0 … {rows - 1}, columns 0 … {columns - 1}"
        )
    here = [(word, float(heat[row, column])) for word, heat in found.items() if word not in SPECIAL]
    return sorted(here, key=lambda pair: -pair[1])


# --- words -------------------------------------------------------------------------------------


def phrases(words: Words, joined: Sequence[str]) -> list[tuple[str, list[int]]]:
    """The words with those that make up each phrase taken as one: 'fire truck'. A phrase that is
    not there changes nothing."""
    words = [(word, [*places]) for word, places in words]
    for phrase in joined:
        parts = phrase.split()
        for i in range(len(words) - len(parts), -1, -1):
            run = words[i : i + len(parts)]
            if [word for word, _ in run] == parts:
                words[i : i + len(parts)] = [(phrase, [p for _, places in run for p in places])]
    return words


def numbered(names: Sequence[str]) -> list[str]:
    """The names, each told from those that came before: a, cat, a#2."""
    came: Counter[str] = Counter()
    made = []
    for name in names:
        came[name] += 1
        made.append(name if came[name] == 1 else f"{name}#{came[name]}")
    return made


# --- a step, a layer ---------------------------------------------------------------------------


def layers_in(steps: Sequence[Mapping[str, Any]], pooling: Pooling) -> list[str]:
    """The addresses that the pooling means."""
    wanted = patterns_of(pooling.layers)
    found = [name for name in next(iter(steps), ()) if any(matches(p, name) for p in wanted)]
    if not found:
        raise UsageError(
            f'nothing was read of {", ".join(wanted)}; use Probe("{CROSS}", Mean("head"))'
        )
    return found


def axes_of(shots: Shots, step: Mapping[str, Any], address: str) -> tuple[str, ...]:
    """As the film or the reads tell them, else as the address does."""
    dims = getattr(shots, "dims", getattr(step, "dims", {}))
    told = dims(address) if callable(dims) else dims.get(address)
    return tuple(told or dims_of(address, step[address].ndim))


def check_axes(dims: tuple[str, ...], address: str, pooling: Pooling) -> None:
    if dims[1:] not in AXES or dims[0] != "half":
        raise UsageError(
            f'{address} was read as {", ".join(dims)}; read it whole or with Mean("head")'
        )
    if pooling.heads is not None and "head" not in dims:
        raise UsageError(f'{address} was read with Mean("head"); to choose heads, read it whole')


def check_tokens(tokens: Sequence[Sequence[int]], count: int) -> None:
    if wrong := [i for places in tokens for i in places if not 0 <= i < count]:
        raise UsageError(f"no token {wrong[0]}: there are 0 … {count - 1}")


def token_count(shots: Shots) -> int:
    """How many tokens the attention is over: 77."""
    step = shots if isinstance(shots, Mapping) else next(iter(shots), {})
    return next((step[name].shape[-1] for name in step if matches(CROSS, name)), 0)


def step_weights(pooling: Pooling, count: int) -> np.ndarray:
    """(count,), of sum 1."""
    named = isinstance(pooling.steps, str)
    weights = np.asarray(STEPS[pooling.steps](count) if named else pooling.steps, float)
    if weights.shape != (count,) or not weights.sum() > 0:
        raise UsageError(f"steps= weighs {weights.size} steps, and here are {count}; one for each")
    return weights / weights.sum()


def looked_at(probs: np.ndarray, pooling: Pooling, picture: int) -> np.ndarray:
    """What one picture's positions give to each token in one layer and step, the mean over heads:
    (half, head, positions, 77) or (half, positions, 77) → (positions, 77)."""
    rows = probs[HALVES[pooling.half](len(probs))]
    if not 0 <= picture < len(rows):
        raise UsageError(f"no picture {picture}: there are 0 … {len(rows) - 1}")
    one = rows[picture]
    if one.ndim == 2:
        return one
    heads = range(len(one)) if pooling.heads is None else pooling.heads
    if wrong := [head for head in heads if not 0 <= head < len(one)]:
        raise UsageError(f"no head {wrong[0]}: there are 0 … {len(one) - 1}")
    return one[list(heads)].mean(0)


def on_grid(
    layer: np.ndarray, tokens: Sequence[Sequence[int]], grid: tuple[int, int], pooling: Pooling
) -> np.ndarray:
    """A layer's (rows, columns, 77) → (groups, *grid), resized and normed."""
    joined = np.stack([JOINS[pooling.join](layer[..., list(places)]) for places in tokens])
    resize = RESIZES[pooling.resize]
    down, across = (resize(into, cells) for into, cells in zip(grid, layer.shape[:2], strict=True))
    return NORMS[pooling.norm](np.maximum(down @ joined @ across.T, 0))


def latent_shape(step: Mapping[str, Any], told: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows and columns of the latent; None where nobody says."""
    return told or (tuple(step["x"].shape[1:3]) if "x" in step else None)


def grid_of(places: int, shape: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of a layer with so many positions."""
    h, w = shape or (1, 1)
    rows = round((places * h / w) ** 0.5)
    if places % rows or rows * w != places // rows * h:
        told = "is no square" if shape is None else f"does not go with a latent of {h} × {w}"
        raise UsageError(f"a layer of {places} positions {told}; say shape=, rows and columns")
    return rows, places // rows


def pooling_for(sd: "StableDiffusion", pooling: Pooling = DEFAULT) -> Pooling:
    """A latent consistency model runs with one prediction, not two halves."""
    return replace(pooling, half="whole") if sd.unet_config.time_cond_proj_dim else pooling


# --- reading -----------------------------------------------------------------------------------


def probe() -> "Probe":
    """What heat maps are made of: every cross-attention, the mean over its heads."""
    from xray.probe.interventions import Mean, Probe

    return Probe(CROSS, Mean("head"))


def look(
    sd: "StableDiffusion",
    images: np.ndarray,
    captions: Sequence[str],
    times: Sequence[int] = TIMES,
    seed: int = 0,
) -> "list[Reads]":
    """What the UNet reads of captions while it looks at pictures: they are encoded, noised to each
    timestep and denoised once, as in a run under guidance. One `Reads` for each timestep, for
    `word_maps`, with the heads averaged. `sd` may be an instrument that reads them already, which
    is compiled once for many such calls.

    images: (b, H, W, 3) uint8 or floats in [-1, 1]; captions: b. Raises UsageError.
    """
    from xray.probe.instrumented import instrument

    if len(images) != len(captions):
        raise UsageError(f"{len(images)} pictures and {len(captions)} captions; give one for each")
    if probe() not in getattr(sd, "probes", ()):
        sd = instrument(sd, probe())
    latent = sd.encode_image(images)
    noise = np.random.default_rng(seed).standard_normal(latent.shape, dtype=np.float32)
    context = sd.encode_text([*[""] * len(captions), *captions])
    kept = []
    for t in times:
        x = scheduler.add_noise(latent, noise, t, sd.alphas)
        sd.predict_noise(np.concatenate([x, x]), t, context)
        kept.append(copied(sd.reads))
    return kept


def copied(reads: "Reads") -> "Reads":
    """As they are now; the next call of a network writes to them."""
    made = type(reads)()
    made.update(reads)
    made.dims.update(reads.dims)
    return made


# --- self-attention ----------------------------------------------------------------------------


def looks_at(row: float, column: float, shape: tuple[int, int] = (1, 1)) -> Callable[[Any], Any]:
    """A reduction for `unet.*.attn1.probs`: what the position at this place attends to, the mean
    over the heads, (half, head, positions, positions) → (half, rows, columns).

    row, column: of the place, as shares of the picture's height and width, from 0 to below 1.
    shape: rows and columns of the latent, or any two numbers of that ratio. Raises UsageError.
    """
    if not (0 <= row < 1 and 0 <= column < 1):
        raise UsageError(f"a place is two shares from 0 to below 1, not {row:g}, {column:g}")

    def reduce(probs: Any) -> Any:
        from keras import ops

        rows, columns = grid_of(probs.shape[-1], shape)
        cell = int(row * rows) * columns + int(column * columns)
        seen = ops.mean(ops.cast(probs[:, :, cell], "float32"), axis=1)  # (half, h·w)
        return ops.reshape(seen, (-1, rows, columns))

    return reduce
