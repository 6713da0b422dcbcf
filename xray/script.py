"""What every script shares: its command line, the model, the folder it saves into."""

import importlib
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.machine import has_fast_bfloat16

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

INTERRUPTED = 130  # the shell's status for Ctrl-C


def run(main: Callable[..., None]) -> None:
    """Run a script's main with the shell's arguments: bad input is one line and status 2."""
    try:
        tyro.cli(main)
    except UsageError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; nothing was saved", file=sys.stderr)
        sys.exit(INTERRUPTED)


@contextmanager
def saving_into(folder: Path) -> Iterator[None]:
    """What was saved before Ctrl-C or a full disk stays, and the user is told where."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped; what was finished lies in {folder}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        raise UsageError(
            f"cannot write {folder}: {error.strerror}; free it or name --out"
        ) from None


def load_model(weights: str, precision: str = "float32") -> "StableDiffusion":
    """The model by name, folder or file. TensorFlow keeps quiet, while it starts and when it
    compiles a function once more for another size. Raises UsageError."""
    with native_stderr_closed():
        start_tensorflow()
        from stable_diffusion_tf import StableDiffusion
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    model = StableDiffusion.load(weights, precision)
    if precision == "bfloat16" and not has_fast_bfloat16():
        print("bfloat16 is slow on this CPU; float16-storage takes as little memory and is quicker")
    return model


def start_tensorflow() -> None:
    """Import TensorFlow, if Keras is to compute with it, without JAX: where that is installed, a
    converter in TensorFlow that nobody here calls would import it, 0.1 GB."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        with hidden("jax"):
            importlib.import_module("tensorflow")


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """Importing the module fails inside, unless it has been imported before."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]


@contextmanager
def native_stderr_closed() -> Iterator[None]:
    """TensorFlow's libraries write to descriptor 2 while they load, past sys.stderr."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def make_folder(out: Path, script: str, subject: str) -> Path:
    """out/<script>/<time>-<subject>/, new and empty."""
    slug = re.sub(r"[^\w]+", "-", subject.lower()).strip("-")[:40] or "empty"
    stem = out / script / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{slug}"
    try:
        return new_folder(stem)
    except OSError as error:
        raise UsageError(f"cannot write into {out}: {error.strerror}; name another --out") from None


def new_folder(stem: Path) -> Path:
    """The folder, or the first of -2, -3 … that is not there yet."""
    folder, number = stem, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise
            number += 1
            folder = stem.with_name(f"{stem.name}-{number}")


def check_range(option: str, value: float, least: float, most: float, usual: float) -> None:
    """Raises UsageError where the value of an option lies outside of its range, ends included."""
    if not least <= value <= most:
        raise UsageError(f"--{option} {value:g} is not from {least:g} to {most:g}; try {usual:g}")


def check_seed(seed: int) -> None:
    if seed < 0:
        raise UsageError(f"a seed of {seed} is negative; try {-seed}")


def read_image(path: Path, size: int) -> np.ndarray:
    """The middle square of a picture, (size, size, 3) uint8, RGB, turned as its EXIF says."""
    if not 16 <= size <= 4096:
        raise UsageError(f"a size of {size} is not from 16 to 4096 pixels; try 256")
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"cannot read {path} ({error}); name a whole PNG or JPEG") from None
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def conclude(finding: str, control: str, **saved: Path) -> None:
    """The last lines of every script: its answer, what the control did, where all is saved."""
    print(f"finding  {finding}\ncontrol  {control}")
    for kind, path in saved.items():
        print(f"{kind:8} {path}")


def save_figure(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=150)


def peak_memory() -> str:
    """The most memory that this process has held, in GB; where the system does not say, '?'."""
    try:
        import resource
    except ImportError:  # Windows
        return "?"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.2f}"
