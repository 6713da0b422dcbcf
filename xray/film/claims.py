"""Who may write into a film's folder: one run at a time, over a film where asked."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stable_diffusion_tf.errors import UsageError

from .damage import within
from .storage import DECODED, FACTS, FRAMES, IMAGE, TEXT, telling

if TYPE_CHECKING:
    from .film import Film

FRESH = "fresh.part"  # in a film's folder, while another is shot that will take its place


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is not there, against every other run. The system lets go of it
    when the process ends, however it ends. Raises UsageError where another run holds it."""
    with telling(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = hold(folder)
        except (BlockingIOError, FileExistsError):
            raise UsageError(
                f"another run writes into {folder} right now; wait for it or name another folder"
            ) from None
    try:
        yield
    finally:
        os.close(handle)


if os.name == "nt":

    def hold(folder: Path) -> int:
        """A file that is there as long as it is open."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_TEMPORARY
        return os.open(folder / "claim.part", flags)

else:
    import fcntl

    def hold(folder: Path) -> int:
        """The folder itself, open and locked. Some network disks know no locks of folders; there
        it is not held."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:
            pass
        return handle


@contextmanager
def in_place_of(film: "type[Film]", out: Path) -> Iterator[Path]:
    """A folder to shoot into that becomes the film of `out` once the run is over: until then, and
    where it fails, the film before it is whole. What else lies in `out` stays there.

    Where `out` holds no film, it is `out` itself. Raises UsageError where it holds something that
    only looks like one.
    """
    if not any((out / name).exists() for name in (FACTS, FRAMES, IMAGE)):
        yield out
        return
    check_replaceable(film, out)
    fresh = out / FRESH
    with claimed(out):
        shutil.rmtree(fresh, ignore_errors=True)  # of a run that was killed
        try:
            yield fresh
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        with telling(out):
            replace(out, fresh)
        shutil.rmtree(fresh, ignore_errors=True)


def check_replaceable(film: "type[Film]", out: Path) -> None:
    there = film.open(out)
    if not there.facts and not len(there):
        raise UsageError(f"{out} holds no film to overwrite: {there.state}; name another folder")
    named = [*(out / FRAMES).iterdir()] if (out / FRAMES).is_dir() else []
    if strange := [path for path in named if ".safetensors" not in path.name]:
        raise UsageError(
            f"{out} holds {within(out, strange[0])}, which is of no film; move it or name another "
            f"folder"
        )


def replace(out: Path, fresh: Path) -> None:
    """Put a film in the place of another. film.json goes first and comes last: what is between is
    no film."""
    (out / FACTS).unlink()
    shutil.rmtree(out / FRAMES, ignore_errors=True)
    for name in (TEXT, DECODED, IMAGE):
        (out / name).unlink(missing_ok=True)
    for name in (FRAMES, TEXT, DECODED, IMAGE, FACTS):
        with suppress(FileNotFoundError):
            os.replace(fresh / name, out / name)
