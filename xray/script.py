"""What every script shares: its command line, the model, the folder it saves into."""

import functools
import importlib
import io
import logging
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from matplotlib.figure import Figure
from safetensors import SafetensorError

from stable_diffusion_tf.arguments import check_seed as check_seed  # scripts ask it of here
from stable_diffusion_tf.backend import chosen_backend
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.machine import has_fast_bfloat16

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

INTERRUPTED = 130  # the shell's status for Ctrl-C


def run(main: Callable[..., None]) -> None:
    """Run a script's main with the shell's arguments: bad input is one line and status 2. A folder
    `out` that cannot be written is bad input, and told before any work; a letter that the terminal
    or the log file does not know is a question mark there."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        check_dashes(sys.argv[1:])
        tyro.cli(checked(main))
    except UsageError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; nothing was saved", file=sys.stderr)
        sys.exit(INTERRUPTED)


def check_dashes(words: Sequence[str]) -> None:
    """Raises UsageError for a text that begins with a dash, which would be taken for an option."""
    before = words[: words.index("--")] if "--" in words else words
    for last, word in zip(["", *before], before, strict=False):
        if re.match(r"-\S* ", word) and not re.match(r"--\w", last) and "=" not in word:
            raise UsageError(
                f"“{word}” begins with a dash; end the line with -- {shlex.quote(word)}"
            )


def checked(main: Callable[..., None]) -> Callable[..., None]:
    """main, which first looks whether the folder `out` that it is handed can be written."""

    @functools.wraps(main)
    def start(*positional, **options) -> None:
        if isinstance(options.get("out"), Path):
            check_out(options["out"])
        main(*positional, **options)

    return start


def check_out(out: Path) -> None:
    """Raises UsageError where no folder can be made at `out`. Leaves nothing behind."""
    try:
        there = next(place for place in (out, *out.absolute().parents) if place.exists())
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise cannot_write_into(out, error) from None


def cannot_write_into(out: Path, error: Exception) -> UsageError:
    return UsageError(f"cannot write into {out}: {reason(error)}; name another --out")


def reason(error: Exception) -> str:
    """The system's words for what went wrong; safetensors hides its number in a sentence."""
    hidden_in = re.search(r"\(os error (\d+)\)", str(error))
    known = os.strerror(int(hidden_in[1])) if hidden_in else str(error)
    return getattr(error, "strerror", None) or known


@contextmanager
def saving_into(folder: Path) -> Iterator[None]:
    """What was saved before Ctrl-C or a full disk stays, and the user is told where."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped; what was finished lies in {folder}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (OSError, SafetensorError) as error:
        if isinstance(error, SafetensorError) and "os error" not in str(error):
            raise  # a file that was read
        raise UsageError(
            f"cannot write {folder}: {reason(error)}; free it or name another --out"
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
    if chosen_backend() == "tensorflow":
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
    if sys.stderr is None:  # closed, as by 2>&-
        yield
        return
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
        raise cannot_write_into(out, error) from None


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
