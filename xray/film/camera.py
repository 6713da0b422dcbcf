"""Shooting a film: the run, and its record as it goes on."""

import hashlib
import itertools
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stable_diffusion_tf.arguments import place
from stable_diffusion_tf.checkpoint.mapped import given_back_meanwhile
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from stable_diffusion_tf.machine import kernels

from .claims import claimed, in_place_of
from .recipe import as_data
from .storage import (
    DECODED,
    FACTS,
    FRAMES,
    IMAGE,
    TEXT,
    frame_path,
    steps_there,
    telling,
    write_image,
    write_json,
    write_tensors,
)

if TYPE_CHECKING:  # reading a film does without Keras
    import keras

    from stable_diffusion_tf import StableDiffusion, Step
    from xray.probe.instrumented import Instrument
    from xray.probe.interventions import Edit, Probe

    from .film import Film

FIELDS = ("x", "eps_uncond", "eps_cond", "eps", "x0", "x_prev")
Arrays = Mapping[str, np.ndarray]
Progress = Callable[[Sequence[int]], Iterable[int]]


def shoot(
    film: "type[Film]",
    sd: "StableDiffusion",
    prompt: str | Sequence[str],
    *,
    negative: str = "",
    steps: int = 25,
    guidance: float = 7.5,
    eta: float = 0.0,
    seed: int | Sequence[int] = 0,
    height: int | None = None,
    width: int | None = None,
    latent: np.ndarray | None = None,
    probes: "str | Probe | Sequence[str | Probe]" = (),
    edits: "Edit | Sequence[Edit]" = (),
    out: str | Path,
    overwrite: bool = False,
    memory: float = 1e9,
    progress: Progress | None = None,
) -> "Film | list[Film]":
    """Draw a picture as `sd.generate` does, where nothing is edited, and keep the film.
    Where `sd` is an instrument, its rules are in force and on record too.

    prompt, seed: of one or the other several, or of both: every prompt is drawn from every seed,
    and the films, in the folders 000, 001, … of `out`, come as a list, the seeds of the first
    prompt first. The networks are compiled once for all.
    height, width: in pixels; None is the model's own size. latent: where to start, (1, h, w, 4), of
    whatever size; None draws it from the seed. out: a folder, new or without a film. overwrite: the
    film that lies there gives way to this one once the run is over; what else lies there stays.
    memory: bytes that the probes may read in the UNet in one step. progress: as in `sd.denoise`.

    Every file is written as soon as it is known; only the step at hand is kept. Raises UsageError
    before the first step where probes read too much or the disk is too small, and for a disk that
    fills up later: what was finished opens.
    """
    from xray.probe.instrumented import instrument

    out, seen = place("out", out), instrument(sd, probes, edits)
    asked = {"negative": negative, "steps": steps, "guidance": guidance, "eta": eta}
    takes = takes_of(prompt, seed, out)
    starts = [first_latent(sd, number, height, width, latent) for _, number, _ in takes]
    for _, _, folder in takes if not overwrite else ():
        check_free(folder)
    foreseen = look_ahead(sd, starts[0], seen.probes)
    check_room(out, steps * len(takes), starts[0].nbytes, foreseen, memory)
    films = []
    for (words, number, folder), start in zip(takes, starts, strict=True):
        facts = facts_of(sd, words, start, latent is None, {"seed": number, **asked})
        facts |= rules_as_data(seen, folder)
        parts = run(seen, facts, start, progress)
        with in_place_of(film, folder) if overwrite else nullcontext(folder) as written:
            record(sd, facts, parts, seen.reads.dims, written, memory)
        films.append(film.open(folder))
    return films if np.ndim(prompt) or np.ndim(seed) else films[0]


def takes_of(
    prompt: str | Sequence[str], seed: int | Sequence[int], out: Path
) -> list[tuple[str, int, Path]]:
    """Each prompt with each seed, and the folder that it is for."""
    if not np.ndim(prompt) and not np.ndim(seed):
        return [(prompt, seed, out)]
    prompts, seeds = (list(x) if np.ndim(x) else [x] for x in (prompt, seed))
    if not prompts or not seeds:
        raise UsageError("there is nothing to shoot: give one prompt and one seed at least")
    pairs = itertools.product(prompts, seeds)
    return [(*pair, out / f"{i:03}") for i, pair in enumerate(pairs)]


def first_latent(
    sd: "StableDiffusion",
    seed: int,
    height: int | None,
    width: int | None,
    latent: np.ndarray | None,
) -> np.ndarray:
    """Where a run starts, (1, h, w, 4): the latent that was handed in, or noise from the seed."""
    start = sd.draw_noise(seed, 1, height, width) if latent is None else latent
    return np.asarray(start, np.float32)


def facts_of(
    sd: "StableDiffusion",
    prompt: str,
    start: np.ndarray,
    from_seed: bool,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """What film.json says of a run that starts from x, (1, h, w, 4), but for its rules."""
    return {
        "prompt": prompt,
        **asked,
        "start": "seed" if from_seed else "latent",
        "latent_shape": list(start.shape),
        "tokens": sd.tokenizer.pieces(sd.tokenize(prompt)[0]),
        **describe(sd),
    }


def rules_as_data(seen: "Instrument", out: Path) -> dict[str, Any]:
    """All rules in force, as film.json in a folder holds them."""
    return {name: as_data(list(getattr(seen, name)), out) for name in ("probes", "edits")}


# --- the run -----------------------------------------------------------------------------------


class Part(NamedTuple):
    """What one call of a network said: which network, at which step of the loop (the text encoder
    and the decoder lie outside of it), and the arrays by name, in order of execution."""

    network: str
    step: "Step | None"
    arrays: Arrays


def run(
    sd: "Instrument",
    facts: Mapping[str, Any],
    x: np.ndarray,
    progress: Progress | None = None,
) -> Iterator[Part]:
    """The run that film.json tells of, from x, (1, h, w, 4), with what the instrument reads."""
    reads = sd.reads
    context, uncond = np.split(sd.encode_text([facts["prompt"], facts["negative"]]), 2)
    text = {"context": context, "uncond": uncond}
    yield Part("text_encoder", None, read_in("text_encoder", reads) | text)
    sd.finish("text_encoder")
    asked = [facts[name] for name in ("steps", "guidance", "eta", "seed")]
    shown = {"progress": progress} if progress else {}
    for step in sd.denoise(context, uncond, *asked, latent=x, **shown):
        yield Part("unet", step, in_order(step, read_in("unet", reads)))
    sd.finish("unet")
    image = to_uint8(sd.decode_latent(step.x_prev))[0]
    yield Part("decoder", None, read_in("vae", reads) | {"image": image})


def read_in(root: str, reads: Arrays) -> dict[str, np.ndarray]:
    """What was read at the addresses that begin with this name."""
    return {key: value for key, value in reads.items() if re.match(rf"{root}\b", key)}


def in_order(step: "Step", reads: Arrays) -> dict[str, np.ndarray]:
    """The fields of a step, and between the first and the others what the UNet said on its way."""
    first, *others = FIELDS
    return {first: step.x, **reads, **{name: getattr(step, name) for name in others}}


def describe(sd: "StableDiffusion") -> dict[str, Any]:
    """Which model it is, and what it runs on."""
    return {
        "scheduler": "LCM" if sd.is_lcm else "DDIM",
        "weights": sd.checkpoint.place.name,
        "precision": sd.precision,
        "backend": sd.backend,
        "kernels": kernels(sd.backend),
        "versions": {
            "diffusion-xray": project_version(),
            **{name: sys.modules[name].__version__ for name in ("keras", sd.backend)},
        },
    }


def project_version() -> str:
    """The version of this project, which need not be installed."""
    try:
        return version("diffusion-xray")
    except PackageNotFoundError:
        told = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
        return re.search(r'^version = "(.+)"', told, re.MULTILINE)[1]


def digest(network: "keras.Model") -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of a network's variables, in their order."""
    from keras import ops

    made = hashlib.sha256()
    with given_back_meanwhile():
        for variable in network.variables:
            made.update(f"{variable.path} {variable.dtype} {tuple(variable.shape)}\n".encode())
            value = np.ascontiguousarray(ops.convert_to_numpy(variable.value))  # one at a time
            made.update(value.reshape(-1).view(np.uint8))
    return made.hexdigest()


# --- writing -----------------------------------------------------------------------------------


def record(
    sd: "StableDiffusion",
    facts: Mapping[str, Any],
    parts: Iterable[Part],
    dims: Mapping[str, tuple[str, ...]],
    out: Path,
    memory: float,
) -> None:
    """Write a run as it goes on. film.json is written again whenever another network has been
    called: only then are its weights known, and the axes of what was read in it."""
    facts = {**facts, "weights_hash": {}}
    with claimed(out):
        with telling(out):
            start_film(out, facts)
        for network, step, arrays in parts:
            if step and step.index == 0:
                sizes = {name: array.nbytes for name, array in arrays.items() if name not in FIELDS}
                check_room(out, facts["steps"], step.x.nbytes, sizes, memory)
            with telling(out):
                if network not in facts["weights_hash"]:
                    facts["weights_hash"][network] = digest(sd.network(network))
                    facts["taps"] = dict(dims)
                    write_json(out / FACTS, facts)
                WRITERS[network](out, step, arrays)


def start_film(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write film.json and make room for the frames. Raises UsageError where there are some."""
    check_free(folder)
    (folder / FRAMES).mkdir(parents=True, exist_ok=True)
    write_json(folder / FACTS, facts)


def check_free(folder: Path) -> None:
    """Raise UsageError where a film is."""
    if steps_there(folder) or (folder / IMAGE).exists():
        raise UsageError(f"{folder} holds a film already; name another folder or overwrite=True")


def write_text(folder: Path, _: None, arrays: Arrays) -> None:
    write_tensors(folder / TEXT, arrays)


def write_step(folder: Path, step: "Step", arrays: Arrays) -> None:
    write_tensors(frame_path(folder, step.index), arrays, t=step.t, index=step.index)


def write_decoded(folder: Path, _: None, arrays: Arrays) -> None:
    reads = {name: array for name, array in arrays.items() if name != "image"}
    if reads:
        write_tensors(folder / DECODED, reads)
    write_image(folder / IMAGE, arrays["image"])


WRITERS = {"text_encoder": write_text, "unet": write_step, "decoder": write_decoded}


def look_ahead(
    sd: "StableDiffusion", start: np.ndarray, probes: "Sequence[Probe]"
) -> dict[str, int]:
    """Address → bytes that will be read in the UNet in one step, by the probes without a reduce;
    what a reduce leaves is known only when it has been computed."""
    from xray.probe.addresses import matches, patterns_of
    from xray.probe.survey import asked, unet_taps

    whole = [p for probe in probes if probe.reduce is None for p in patterns_of(probe.pattern)]
    if not whole:
        return {}
    latent, *others = [(spec.shape, spec.dtype) for spec in asked(sd, "unet")]
    latent = (latent[0][0], *start.shape[1:]), latent[1]
    seen = unet_taps(sd.unet_config, (latent, *others))
    found = [tap for tap in seen if any(matches(pattern, tap.address) for pattern in whole)]
    return {tap.address: math.prod(tap.shape) * start.itemsize for tap in found}


def check_room(out: Path, steps: int, latent: int, reads: Mapping[str, int], memory: float) -> None:
    """Raise UsageError where a step's reads, in bytes by address, are more than `memory`, or where
    the disk will not hold all steps. latent: its bytes."""
    taken = sum(reads.values())
    if taken > memory:
        most = max(reads, key=reads.get)
        raise UsageError(
            f"the probes read {megabytes(taken)} in each step, and memory= allows "
            f"{megabytes(memory)}; the most is {most} with {megabytes(reads[most])}: narrow the "
            f'pattern, or reduce it, as in Probe("unet.*.attn2.probs", Mean("head"))'
        )
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free, needed = shutil.disk_usage(there).free, steps * (taken + len(FIELDS) * latent)
    if needed > free:
        raise UsageError(
            f"a film of {steps} steps takes {megabytes(needed)}, and {out} has {megabytes(free)} "
            f"free; free some, narrow the probes or save elsewhere (out)"
        )


def megabytes(count: float) -> str:
    """Bytes in MB, or in kB where they are few."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
