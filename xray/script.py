"""What every script shares: its command line, the model, the folder it saves into."""

import importlib
import io
import json
import logging
import os
import re
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from safetensors import SafetensorError

from stable_diffusion_tf.backend import choose_backend, chosen_backend
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.machine import has_fast_bfloat16, peak_memory
from xray.options import Options, seconds_in
from xray.report import Report
from xray.shell import check_dashes, later, parsed

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.budget.watch import Watch
    from xray.journal import Journal

Asked = TypeVar("Asked", bound=Options)
INTERRUPTED = 130  # the shell's status for Ctrl-C


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Bad input is one line and status 2, Ctrl-C a line and status 130; a letter that the terminal
    or the log file does not know is a question mark there."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        check_dashes(sys.argv[1:])
        yield
    except UsageError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; nothing was saved", file=sys.stderr)
        sys.exit(INTERRUPTED)


def run(main: Callable[..., None]) -> None:
    """Run a command's main with the shell's arguments. A folder `out` that cannot be written is bad
    input, and told before any work."""
    with told_in_a_line():
        call = parsed(later(main))
        if isinstance(out := call.keywords.get("out"), Path):
            check_out(out)
        call()


# --- experiments -------------------------------------------------------------------------------

Main = Callable[["StableDiffusion", Asked], Report]


def run_experiment(main: Main, options: type[Asked]) -> None:
    """Run an experiment with the shell's arguments: make its folder, load the model, print what it
    found, save all of it. A control that fails is an error."""
    started, (name, question) = time.monotonic(), story(main)
    with told_in_a_line():
        check_names(options, sys.argv[1:])
        asked = parsed(options, question)
        asked.check()
        limit = seconds_in(asked.budget) if asked.budget is not None else None
        check_out(asked.out)
        choose_backend(asked.backend)
        sd = load_model(asked.weights, asked.precision, asked.size)
        check_guided(sd, asked)
        watch = watch_over(main, sd, asked, started)
        watch.look_ahead(limit)
        asked = watch.asked
        with (
            folder_for_run(asked.out, name, asked.subject) as folder,
            saving_into(folder),
            watch.watching(),
            calls_kept(watch, name, sd, asked),
        ):
            asked = replace(asked, folder=folder)
            report, files = save_run(main, sd, asked, folder, started, watch.facts)
    print(report)
    for kind, path in files.items():
        print(f"{kind:8} {path}")
    if not report.control.passed:
        raise SystemExit(f"the control failed: {report.control.otherwise}")


def story(main: Main) -> tuple[str, str]:
    """An experiment's name and its question: of a `main` its file's and its module's, else its own
    and that of its docstring."""
    module, own = main.__globals__, main.__name__
    name = Path(module.get("__file__") or own).stem if own == "main" else own
    doc = main.__doc__ or module.get("__doc__") or ""
    return name, " ".join(doc.split("\n\n")[0].split())


def check_guided(sd: "StableDiffusion", asked: Options) -> None:
    """Raises UsageError where the experiment needs ε_uncond and the model has none."""
    if asked.guided and sd.is_lcm:
        raise UsageError(
            f"{asked.weights} takes the guidance as an input and has no ε_uncond; "
            "name other weights"
        )


def save_run(
    main: Main,
    sd: "StableDiffusion | None",
    asked: Any,
    folder: Path,
    started: float,
    more: Callable[[], Mapping[str, Any]],
) -> tuple[Report, dict[str, Path]]:
    """Run an experiment, and save its report into a folder that exists with the facts of the run
    around it, `more` of them too: the report, and the kinds of files → where they lie. asked: its
    options. sd: None for what needs no model. started: by the monotonic clock. Raises OSError."""
    name, question = story(main)
    report = main(sd, asked)
    facts = {"script": name, "question": question, "options": as_text(asked)}
    model = model_facts(sd) if sd else {}
    return report, report.save(folder, facts | model | taken_since(started) | more())


def check_names(options: type[Asked], words: Sequence[str]) -> None:
    """Raises UsageError for an option by a name that it once had."""
    for word in words[: words.index("--")] if "--" in words else words:
        if now := options.renamed.get(word.partition("=")[0]):
            bare = "" if now.startswith("--") else ", and has no name in front"
            raise UsageError(f"{word.partition('=')[0]} is called {now} now{bare}")


@contextmanager
def folder_for_run(out: Path, script: str, subject: str) -> Iterator[Path]:
    """A new folder; where nothing is saved into it, it goes again, and the folders around it that
    were not there before."""
    around = [place for place in (out / script, *(out / script).parents) if not place.exists()]
    folder = make_folder(out, script, subject)
    try:
        yield folder
    finally:
        for place in (folder, *around):
            if place.exists() and not any(place.iterdir()):
                place.rmdir()


def as_text(options: Any) -> dict[str, Any]:
    """The options of a run as JSON has them. options: a dataclass, or names → values."""
    kept = {name: value for name, value in named(options).items() if name != "folder"}
    return json.loads(json.dumps(kept, default=str))


def named(options: Any) -> dict[str, Any]:
    """The options of a run, name → value."""
    if isinstance(options, Mapping):
        return dict(options)
    return {field.name: getattr(options, field.name) for field in fields(options)}


def calls_kept(
    watch: "Watch", name: str, sd: "StableDiffusion", asked: Options
) -> "AbstractContextManager[Journal]":
    """Inside, calls of a long run are kept until it is finished, for the same command."""
    from xray.film.camera import describe
    from xray.journal import UNFINISHED, kept, key_of

    def key() -> str:
        options = {n: value for n, value in as_text(asked).items() if n not in ("out", "budget")}
        told = {"script": name, "options": options, "model": describe(sd)}
        return key_of(told, sd.checkpoint.place)

    return kept(watch, asked.out / name / UNFINISHED, key)


def watch_over(main: Main, sd: "StableDiffusion", asked: Asked, started: float) -> "Watch[Asked]":
    """What knows the cost of a run. started: when, by the monotonic clock."""
    from xray.budget.watch import Watch

    return Watch(main, sd, asked, started)


def taken_since(started: float) -> dict[str, float | None]:
    """Seconds by the monotonic clock, and the most memory that was held, in GB."""
    peak = peak_memory()
    seconds = round(time.monotonic() - started, 3)
    return {"seconds": seconds, "peak_gb": None if peak is None else round(peak / 1e9, 2)}


def model_facts(sd: "StableDiffusion") -> dict[str, Any]:
    """Which model it was and on what it ran, and a checksum of each part that was loaded."""
    from xray.film.camera import describe

    hashes = {part: checksum(network) for part, network in sd.networks.items()}
    return {"model": describe(sd), "weights_hash": hashes}


CHECKSUMS: WeakKeyDictionary = WeakKeyDictionary()  # network → SHA-256, for as long as it is there


def checksum(network: Any) -> str:
    """The digest of a network, whose weights stay what they are, computed once."""
    from xray.film.camera import digest

    if network not in CHECKSUMS:
        CHECKSUMS[network] = digest(network)
    return CHECKSUMS[network]


# --- where to save -----------------------------------------------------------------------------


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
    """The system's words for what went wrong."""
    number = system_number(error)
    return getattr(error, "strerror", None) or (
        str(error) if number is None else os.strerror(number)
    )


def system_number(error: BaseException) -> int | None:
    """The system's number of an error, None where it is not the system's; safetensors hides it in
    a sentence."""
    hidden_in = re.search(r"\(os error (\d+)\)", str(error))
    return int(hidden_in[1]) if hidden_in else getattr(error, "errno", None)


@contextmanager
def saving_into(folder: Path) -> Iterator[None]:
    """What was saved before Ctrl-C or a full disk stays, and the user is told where."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped; what was finished lies in {folder}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (OSError, SafetensorError) as error:
        if isinstance(error, SafetensorError) and system_number(error) is None:
            raise  # a file that was read
        raise UsageError(
            f"cannot write {folder}: {reason(error)}; free it or name another --out"
        ) from None


def load_model(
    weights: str, precision: str = "float32", size: int | None = None
) -> "StableDiffusion":
    """The model by name, folder or file. TensorFlow keeps quiet, while it starts and when it
    compiles a function once more for another size. Raises UsageError."""
    with native_stderr_closed():
        start_keras()
        from stable_diffusion_tf import StableDiffusion
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    model = StableDiffusion.load(weights, precision, size)
    if precision == "bfloat16" and not has_fast_bfloat16():
        print("bfloat16 is slow on this CPU; float16-storage takes as little memory and is quicker")
    if precision == "float16-storage" and model.backend == "openvino":
        print("float16-storage takes as much memory as float32 on OpenVINO; int8-storage a third")
    return model


def start_keras() -> None:
    """Import Keras and what it computes with, without what is imported besides, for parts that
    nobody here calls: JAX and pandas wherever they are installed, 0.15 GB, and on OpenVINO SciPy's
    signals, most of that import's time."""
    backend = chosen_backend()
    if backend == "openvino":
        sys.modules.setdefault("scipy.signal", Late("scipy.signal"))
    with hidden(*{"jax", "pandas"} - {backend}):
        for library in (backend, "keras"):
            importlib.import_module(library)


@contextmanager
def hidden(*modules: str) -> Iterator[None]:
    """Importing one of the modules fails inside, unless it has been imported before."""
    absent = [module for module in modules if module not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for module in absent:
            del sys.modules[module]


class Late(types.ModuleType):
    """A module that is imported once something of it is asked for. (importlib's LazyLoader imports
    at the second `import` already.)"""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


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
