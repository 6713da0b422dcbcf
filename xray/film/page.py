"""A film as one page of HTML that opens anywhere: what it tells, and what is left out where that
would be too much. The page itself is put together in xray/viewer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_diffusion_tf import scheduler
from stable_diffusion_tf.disk import whole_file
from stable_diffusion_tf.errors import UsageError
from xray.attention.attention import (
    DEFAULT,
    INSIDE,
    SPECIAL,
    layers_in,
    numbered,
    step_maps,
    word_maps,
)
from xray.attention.pooling import CROSS, Pooling
from xray.measure import fit_latent_to_rgb, iou_at, resize_by_area
from xray.probe.addresses import matches
from xray.viewer.page import framed, quantised, write_page

from . import html
from .html import data_uri
from .storage import telling

if TYPE_CHECKING:
    from xray.probe.interventions import Probe

    from .film import Film

BLOCKS = ("unet.*.resnets.?", "unet.*.attentions.?")
TOLD = (
    "prompt",
    "negative",
    "seed",
    "steps",
    "guidance",
    "eta",
    "scheduler",
    "weights",
    "precision",
    "backend",
    "kernels",
    "versions",
)  # no path, nothing of the machine's user
MEGABYTES = 9.0
SAVINGS = (
    "nothing",
    "heads of single steps",
    "heads",
    "the half without the prompt",
    "places beyond 32 × 32",
)
FEW = 32
BITS = {"maps": np.uint8, "latents": np.uint16}


def probes() -> "list[Probe]":
    """What a page can show: every cross-attention, whole, and how active each block is."""
    from xray.probe.interventions import Mean, Probe

    return [Probe(CROSS), Probe(BLOCKS, Mean(("row", "column")))]


def to_html(
    film: "Film",
    path: str | Path,
    masks: Mapping[str, np.ndarray] | None = None,
    megabytes: float = MEGABYTES,
    pooling: Pooling = DEFAULT,
) -> Path:
    """Write the film as one page of HTML, and say where.

    It shows what was filmed: the steps always; words, pixels and heads where `unet.*.attn2.probs`
    was, whole or with Mean("head"); blocks where `probes()` were. masks: word → (H, W) bool, where
    it is known; the page then tells the IoU of its map, and of the start token's. megabytes: the
    most; where that is too little, more and more is left out, in the order of SAVINGS, and the page
    says what. pooling: of the maps over all layers. Raises UsageError where the film has no step,
    or the disk is full.
    """
    if not len(film):
        raise UsageError(f"{film.folder} has no step to show: {film.state}")
    path = Path(path)
    for saved in range(len(SAVINGS)):
        page = write_page("film", payload(film, masks or {}, saved, pooling))
        if len(page) <= megabytes * 1e6:
            break
    with telling(path), whole_file(path) as fresh:
        fresh.write_bytes(page)
    return path


def as_html(film: "Film") -> str:
    """As a notebook shows it: what was asked, and the page in small, in a frame of its own."""
    told = html.as_html(film)
    if not len(film):
        return told
    try:
        page = write_page("film", payload(film, {}, SAVINGS.index("heads"), DEFAULT))
    except (UsageError, ValueError):  # a film of other shapes than a model's
        return told
    return told + framed(page)


# --- what a film tells -------------------------------------------------------------------------


def payload(
    film: "Film", masks: Mapping[str, np.ndarray], saved: int, pooling: Pooling
) -> dict[str, Any]:
    """All that the page knows: names and numbers, and arrays as `Packed`."""
    latents = {name: film[name][:, 0] for name in ("x", "x0")}  # (steps, h, w, c)
    ends = latents["x0"][-1:]
    told: dict[str, Any] = {
        "facts": {name: film.facts[name] for name in TOLD if name in film.facts},
        "steps": [{"index": frame.index, "t": frame.t} for frame in film],
        "picture": None if film.image is None else data_uri(film.image, max(film.image.shape)),
        "size": None if film.image is None else [*film.image.shape[:2]],
        "colours": colours(ends, film.image),
        "curves": curves(film),
        "blocks": blocks(film),
        **{
            name: quantised(np.moveaxis(one, -1, 1), 2, BITS["latents"])
            for name, one in latents.items()
        },
    }
    return told | attention(film, masks, saved, pooling)


def colours(latent: np.ndarray, image: np.ndarray | None) -> dict[str, Any] | None:
    """The linear map to colours that fits this very picture best, as x̂0 is shown; None where the
    run did not get so far."""
    if image is None:
        return None
    matrix, bias, r2 = fit_latent_to_rgb(latent, image[None])
    return {"matrix": matrix.tolist(), "bias": bias.tolist(), "r2": None if r2 != r2 else r2}


def curves(film: "Film") -> dict[str, dict[str, list[float]]]:
    """Of each plot its lines, name → a number for each step: what x and x̂0 are like, what the
    schedule expects (ᾱ·var(x0) + 1 − ᾱ, Ho et al., arXiv 2006.11239, eq. 4), and what the prompt
    changes."""
    found = {
        "RMS of x": {"": [rms(frame["x"]) for frame in film]},
        "RMS of x̂0": {"": [rms(frame["x0"]) for frame in film]},
        "variance of x": {"measured": [float(np.var(frame["x"])) for frame in film]},
    }
    alphas, times = scheduler.alphas_cumprod(), [frame.t for frame in film]
    if max(times) < len(alphas):
        last = float(np.var(film[-1]["x0"]))
        expected = alphas[times] * last + 1 - alphas[times]
        found["variance of x"]["as the schedule has it"] = expected.tolist()
    halves = [(frame["eps_uncond"], frame["eps_cond"]) for frame in film]
    if any(np.any(a != b) for a, b in halves):
        moved = [rms(b - a) / max(rms(a), 1e-12) for a, b in halves]
        found["‖ε_cond − ε_uncond‖ / ‖ε_uncond‖"] = {"": moved}
    return {
        plot: {name: [float(f"{v:.6g}") for v in values] for name, values in lines.items()}
        for plot, lines in found.items()
    }


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def blocks(film: "Film") -> list[dict[str, Any]]:
    """The blocks of which the channels' means were read: how strong they are at each step, RMS, of
    the prompt's half, and how far the prompt moves them."""
    made = []
    for name in film.names:
        if not any(matches(pattern, name) for pattern in BLOCKS):
            continue
        value = film[name]
        value = value.reshape(len(value), value.shape[1], -1)  # (steps, halves, …)
        size = [rms(one) for one in value[:, -1]]
        by = [rms(one[-1] - one[0]) / max(rms(one[0]), 1e-12) for one in value]
        moved = by if value.shape[1] > 1 else None
        made.append({"address": name, "size": size, "moved": moved})
    return made


def attention(
    film: "Film", masks: Mapping[str, np.ndarray], saved: int, pooling: Pooling
) -> dict[str, Any]:
    """Tokens, the maps of each pooled over all layers, and each layer's own; {} where the film has
    no cross-attention."""
    layers = [name for name in film.names if matches(CROSS, name)]
    if not layers:
        return {}
    halves = film.shape(layers[0])[0]
    chosen = pooling if halves > 1 else Pooling(**{**vars(pooling), "half": "whole"})
    layers_in(film, chosen)
    tokens = tokens_of(film, film.shape(layers[0])[-1])
    latent = tuple(film.shape("x")[1:3])
    grid = max((grid_of(film, name, latent) for name in layers), key=np.prod)
    words = [(token["text"], token["places"]) for token in tokens if not token["special"]]
    pooled = word_maps(film, words, chosen, grid, latent)
    now = step_maps(film, words, chosen, grid, latent)
    order = [SPECIAL[0], *numbered([word for word, _ in words]), *SPECIAL[1:]][: len(tokens)]
    found = {
        "tokens": tokens,
        "inside": INSIDE,
        "saved": [*SAVINGS[1 : 1 + saved]],
        "layers": [],
        "pooled": quantised(np.stack([pooled[n] for n in order]), 1, BITS["maps"]),
        "now": quantised(np.stack([[one[n] for n in order] for one in now]), 2, BITS["maps"]),
        "known": known(film, tokens, masks, chosen),
    }
    for i, name in enumerate(layers):
        places = [token["places"] for token in tokens]
        maps, side = layer_maps(film, name, places, saved, tuple(grid_of(film, name, latent)))
        found[f"layer{i}"] = quantised(maps, 4, BITS["maps"])
        steps, halves, count = maps.shape[:3]
        found["layers"].append({"address": name, "grid": side, "heads": count, "each": steps > 1})
    return found


def tokens_of(film: "Film", length: int) -> list[dict[str, Any]]:
    """The chips: start, each token of the prompt, end, and the padding as one."""
    pieces = film.facts.get("tokens") or [""] * length
    last = next((i for i in range(1, length) if pieces[i] == pieces[-1]), length - 1)
    groups = [(SPECIAL[0], [0], True)]
    groups += [(pieces[i], [i], False) for i in range(1, last)]
    groups += [(SPECIAL[1], [last], True), (SPECIAL[2], [*range(last + 1, length)], True)]
    return [
        {"text": text, "places": places, "special": special}
        for text, places, special in groups
        if places
    ]


def grid_of(film: "Film", name: str, latent: tuple[int, int]) -> list[int]:
    """Rows and columns of a layer's positions."""
    places, (h, w) = film.shape(name)[-2], latent
    rows = round((places * h / w) ** 0.5)
    return [rows, places // rows]


def layer_maps(
    film: "Film", name: str, groups: Sequence[Sequence[int]], saved: int, grid: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """What each group of tokens gets in a layer, its sum: (steps, halves, heads, groups, places),
    less what is saved (one step, one head, one half), and the rows and columns of the places."""
    shots = []
    for frame in film:
        probs = frame[name]
        probs = probs[:, None] if probs.ndim == 3 else probs  # (halves, heads, positions, tokens)
        maps = np.stack([probs[..., list(places)].sum(-1) for places in groups], axis=2)
        maps = maps.mean(1, keepdims=True) if saved >= SAVINGS.index("heads") else maps
        shots.append(maps[-1:] if saved >= SAVINGS.index("the half without the prompt") else maps)
    made = np.stack(shots)
    if saved == SAVINGS.index("heads of single steps") and made.shape[2] > 1:
        made = made.mean(0, keepdims=True)
    if saved >= SAVINGS.index("places beyond 32 × 32"):
        square = no_finer(made.reshape(*made.shape[:-1], *grid), FEW)
        made, grid = square.reshape(*made.shape[:-1], -1), square.shape[-2:]
    return made, grid


def no_finer(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps, (…, rows, columns), of at most so many places a side."""
    shape = maps.shape[-2:]
    if max(shape) <= side:
        return maps
    return resize_by_area(maps, *(-(-places * side // max(shape)) for places in shape))


def known(
    film: "Film",
    tokens: Sequence[Mapping[str, Any]],
    masks: Mapping[str, np.ndarray],
    pooling: Pooling,
) -> list[dict[str, Any]]:
    """Of each token whose word has a mask: the mask, and the IoU with its map and with where the
    start token gets least, pooled and at each step."""
    words = [(token["text"], token["places"]) for token in tokens if not token["special"]]
    names = numbered([word for word, _ in words])
    latent, made = tuple(film.shape("x")[1:3]), []
    for word, mask in masks.items():
        if word not in names:
            continue
        whole = word_maps(film, words, pooling, mask.shape, latent)
        maps = [whole, *step_maps(film, words, pooling, mask.shape, latent)]
        own, blind = (
            [float(iou_at(sign * one[key], mask, INSIDE)) for one in maps]
            for key, sign in ((word, 1), (SPECIAL[0], -1))
        )
        rows = ["".join("1" if cell else "0" for cell in row) for row in mask]
        made.append({"token": 1 + names.index(word), "rows": rows, "own": own, "blind": blind})
    return made
