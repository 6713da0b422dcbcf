"""A film for other tools: one .npz, an xarray Dataset, TensorBoard's files."""

import importlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stable_diffusion_tf.disk import whole_file
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8

from .storage import Frame, telling

if TYPE_CHECKING:
    import xarray

    from .film import Film

LEVELS = 8  # times at most that a UNet halves the sides of its latent
BINS = 60
BLACK_TO_WHITE = 6.0  # latent units
PROJECTOR = """\
embeddings {
  tensor_name: "context"
  tensor_path: "context.tsv"
  metadata_path: "tokens.tsv"
}
"""


def needed(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"this wants {package}; type: pip install {package}") from None


# --- NumPy -------------------------------------------------------------------------------------


def to_npz(film: "Film", path: str | Path) -> None:
    """Write the film as one .npz for `np.load`: every array of the frames as (steps, …), those
    outside of the loop as they are, `step` and `t` (steps,), `image` and, as text, film.json.

    One array of one frame is in memory at a time. Raises UsageError where the disk is full.
    """
    path = Path(path)
    small = {"step": np.array(list(film.frames), np.int32), "t": times(film)}
    small |= {} if film.image is None else {"image": film.image}
    small["film.json"] = np.array(json.dumps(film.facts))
    with telling(path), whole_file(path) as fresh, zipfile.ZipFile(fresh, "w") as archive:
        for name in film.names:
            shape = (len(film), *film.shape(name))
            add(archive, name, np.dtype(np.float32), shape, (frame[name] for frame in film))
        for place in (film.text, film.decoder, small):
            for name, array in place.items():
                add(archive, name, array.dtype, array.shape, [array])


def add(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    parts: Iterable[np.ndarray],
) -> None:
    """Write one array, part after part along its first axis."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.tobytes())


def times(film: "Film") -> np.ndarray:
    """The timestep of each frame, (steps,)."""
    return np.array([frame.t for frame in film], np.int32)


# --- xarray ------------------------------------------------------------------------------------


def to_xarray(film: "Film", names: Iterable[str] | None = None) -> "xarray.Dataset":
    """The film as a Dataset whose axes have names: step, half, head, row, column, token, channel …

    names: which arrays; None is all of them. They are in memory then. The queries of a layer are
    laid out as rows and columns. Where an axis has several lengths, `row`, `column` and `channel`
    are those of the latent, any other is that which comes first, and the rest bear their length, as
    in `row_8`. Coordinates: step, t, half (uncond, cond), and token, what the prompt's tokens say.
    Raises UsageError where xarray is not installed.
    """
    xarray = needed("xarray", "xarray")
    _, *sides = sides_of(film)
    sizes = dict(zip(("row", "column", "channel"), sides, strict=True))
    variables = {}
    for name in [*film.names, *film.text, *film.decoder] if names is None else names:
        value, dims = stacked(film, name)
        dims, shape = laid_out(dims, value.shape, sides)
        variables[name] = (told_apart(dims, shape, sizes), value.reshape(shape))
    if film.image is not None:
        variables["image"] = (("pixel_row", "pixel_column", "colour"), film.image)
    told = {key: fact for key, fact in film.facts.items() if isinstance(fact, str | int | float)}
    return xarray.Dataset(variables, coordinates(film, sizes), told)


def sides_of(film: "Film") -> tuple[int, int, int, int]:
    """The shape of the latent, (1, h, w, c). Raises UsageError."""
    if len(shape := film.shape("x")) != 4:
        raise UsageError(f"{film.folder} holds an x of {shape}, where (1, h, w, c) belongs")
    return shape


def stacked(film: "Film", name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """An array, of all steps if it has steps, and the names of its axes."""
    if name in film.names:
        return film.read(name), ("step", *film.dims(name))
    return film.holder(name)[name], film.dims(name)


def laid_out(
    dims: tuple[str, ...], shape: tuple[int, ...], latent: Iterable[int]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Axes and shape with `query` as `row` and `column`: the sides of the latent, (h, w, c), halved
    until they have as many cells."""
    if "query" not in dims:
        return dims, shape
    i, (h, w, _) = dims.index("query"), latent
    levels = [(h >> level, w >> level) for level in range(LEVELS)]
    sides = [level for level in levels if level[0] * level[1] == shape[i]]
    if not sides:
        return dims, shape
    return (*dims[:i], "row", "column", *dims[i + 1 :]), (*shape[:i], *sides[0], *shape[i + 1 :])


def told_apart(
    dims: tuple[str, ...], shape: tuple[int, ...], sizes: dict[str, int]
) -> tuple[str, ...]:
    """The axes, those that are not as long as in `sizes` with their length behind their name. What
    is new is entered there."""
    return tuple(
        dim if sizes.setdefault(dim, length) == length else f"{dim}_{length}"
        for dim, length in zip(dims, shape, strict=True)
    )


def coordinates(film: "Film", sizes: dict[str, int]) -> dict[str, tuple[str, Any]]:
    """Coordinate → its axis and what it says along it; of the axes that there are."""
    known = {
        "step": ("step", list(film.frames)),
        "t": ("step", times(film)),
        "half": ("half", ["uncond", "cond"][-sizes.get("half", 2) :]),  # an LCM has only cond
        "token": ("token", film.facts.get("tokens", [])),
    }
    return {name: told for name, told in known.items() if sizes.get(told[0]) == len(told[1])}


# --- TensorBoard -------------------------------------------------------------------------------


def side_by_side(latent: np.ndarray) -> np.ndarray:
    """Latents (b, h, w, c) → their channels from left to right, (b, h, c·w, 3) in [-1, 1]."""
    b, h, w, c = latent.shape
    maps = latent.transpose(0, 1, 3, 2).reshape(b, h, c * w, 1)
    return np.repeat(maps / np.float32(BLACK_TO_WHITE / 2), 3, axis=3)


def to_tensorboard(
    film: "Film",
    folder: str | Path,
    decode: Callable[[np.ndarray], np.ndarray] = side_by_side,
) -> None:
    """Write what `tensorboard --logdir` shows: at each step the histograms of all arrays and a
    picture of x0; the picture at the end; the context, token by token, for the projector.

    decode: latents (b, h, w, c) → pictures (b, H, W, 3) in [-1, 1]: the channels in grey side by
    side, or `sd.decode_latent`. Raises UsageError where tensorboard is not installed.
    """
    files = needed("tensorboard.summary.writer.event_file_writer", "tensorboard")
    events = needed("tensorboard.compat.proto.event_pb2", "tensorboard")
    folder = Path(folder)
    with telling(folder), closing(files.EventFileWriter(str(folder))) as writer:
        for step, values in summaries(film, decode):
            event = {"wall_time": time.time(), "step": step, "summary": {"value": values}}
            writer.add_event(events.Event(**event))
        write_projector(film, folder)


def summaries(
    film: "Film", decode: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Step by step what TensorBoard's protocol calls values."""
    for frame in film:
        shown = to_uint8(decode(frame["x0"]))[0]
        yield frame.index, [*histograms(frame), {"tag": "picture/x0", "image": png(shown)}]
    if film.image is not None:
        yield film[-1].index, [{"tag": "picture/image", "image": png(film.image)}]


def histograms(frame: Frame) -> Iterator[dict[str, Any]]:
    for name, array in frame.items():
        yield {"tag": name, "histo": histogram(array)}


def histogram(array: np.ndarray) -> dict[str, Any]:
    """How the finite values are spread."""
    finite = array[np.isfinite(array)].astype(np.float64)
    counts, edges = np.histogram(finite, BINS)
    return {
        "min": finite.min(initial=edges[-1]),
        "max": finite.max(initial=edges[0]),
        "num": finite.size,
        "sum": finite.sum(),
        "sum_squares": np.square(finite).sum(),
        "bucket_limit": edges[1:],
        "bucket": counts,
    }


def png(image: np.ndarray) -> dict[str, Any]:
    """A picture, (H, W, 3) uint8."""
    made = io.BytesIO()
    Image.fromarray(image).save(made, "PNG")
    height, width, colours = image.shape
    return {
        "height": height,
        "width": width,
        "colorspace": colours,
        "encoded_image_string": made.getvalue(),
    }


def write_projector(film: "Film", folder: Path) -> None:
    """The context, a row for each token, and what the rows are called."""
    context = film.holder("context")["context"][0]
    tokens = film.facts.get("tokens", [""] * len(context))
    np.savetxt(folder / "context.tsv", context, fmt="%.7g", delimiter="\t")
    named = "".join(f"{i} {' '.join(token.split())}\n" for i, token in enumerate(tokens))
    (folder / "tokens.tsv").write_text(named, encoding="utf-8", errors="replace")
    (folder / "projector_config.pbtxt").write_text(PROJECTOR, encoding="utf-8")
