"""Which models are there to download, and what does each of them need?

Without a name, the list. With one, that model: it is told what it is, how large, under which
licence and where it goes, before a byte comes. The files go into the Hugging Face cache, which
other programs share, and what lies there already is not fetched again. An interrupted download
goes on where it stopped. A file gets its name in the cache when its size and its checksum are
right, not before: SHA-256 as the catalogue pins it or, where it pins none, as the hub publishes it.
"""

import difflib
import errno
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, logging
from tqdm import tqdm

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.catalog import File, Model, cached, find, read_catalog
from stable_diffusion_tf.machine import Memory, has_fast_bfloat16, memory
from xray import script

ON_WINDOWS = os.name == "nt"
PYTHON = r".venv\Scripts\python" if ON_WINDOWS else ".venv/bin/python"
DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
BLOCK = 1 << 20  # bytes that are hashed at once


def main(
    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None,
    /,
    yes: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """List the models, or download one.

    Args:
        name: of the model; without it, the list.
        yes: do not ask before the download.
    """
    logging.set_verbosity_error()  # the hub's warnings are told here in one line, or not at all
    models = read_catalog()
    if name is None:
        print("\n".join(listing(models.values(), memory())))
    elif name in models:
        with in_one_line(models[name]):
            obtain(models[name], agreed if yes else ask)
    else:
        near = ", ".join(difflib.get_close_matches(name, models, n=3, cutoff=0.0))
        raise UsageError(f"no model is called {name!r}; near it: {near}; the list: {command()}")


def command(*words: str) -> str:
    return " ".join((PYTHON, str(Path("weights", "download.py")), *words))


# --- the list ------------------------------------------------------------------------------------


def listing(models: Iterable[Model], has: Memory) -> list[str]:
    """The table, a line for each model, and below it what this machine has."""
    head = ("name", "what", "download", "memory", "fits", "licence", "pinned", "here")
    rows = [head, *(row(model, has) for model in models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in rows]
    return [
        *table,
        "",
        "download  takes as much disk as it is large",
        "memory    that a picture needs, about, in float32 / bfloat16; fits: into this machine's",
        "pinned    the catalogue knows every size and SHA-256; no: those that the hub publishes",
        f"here      {describe_memory(has)}",
        f"          {describe_disk()}",
        f"to get    {command('NAME')}",
    ]


def row(model: Model, has: Memory) -> tuple[str, ...]:
    return (
        model.name,
        model.what,
        told_bytes(model, model.bytes),
        " / ".join(map(gigabytes, model.memory.values())) or "–",
        told_fitting(model, has),
        model.licence,
        "yes" if model.pinned else "no",
        "yes" if find(model.name) else "no",
    )


def fitting(model: Model, has: Memory) -> list[str]:
    """The precisions in which the model fits into this machine; unknown memory counts as enough."""
    return [p for p, need in model.memory.items() if has.total is None or need <= has.total]


def told_fitting(model: Model, has: Memory) -> str:
    fits = fitting(model, has)
    return "yes" if len(fits) == len(model.memory) else " ".join(fits) or "no"


def gigabytes(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 1e9:.{2 if number < 1e9 else 1}f} GB"


def told_bytes(model: Model, number: int) -> str:
    return gigabytes(number) if model.pinned else f"about {gigabytes(number)}"


def describe_memory(has: Memory) -> str:
    speed = "quick" if has_fast_bfloat16() else "slow"
    free = "" if has.available is None else f" ({gigabytes(has.available)} free)"
    return f"{gigabytes(has.total)} of memory{free}, bfloat16 is {speed} here"


def describe_disk() -> str:
    return f"{gigabytes(free_disk())} of disk free under {constants.HF_HUB_CACHE}"


def free_disk() -> int:
    """Bytes that the cache can still take."""
    cache = Path(constants.HF_HUB_CACHE)
    return shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free


# --- one model -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Offer:
    """What the hub publishes of a file, and where it goes."""

    url: str
    bytes: int
    digest: str  # SHA-256 or, of a small file, git's SHA-1
    blob: Path  # in the cache, where the file's name in a snapshot links to

    @property
    def part(self) -> Path:
        """What has come so far, named as the cache names it, so that `hf cache prune` knows it."""
        return self.blob.with_name(f"{self.blob.name}.incomplete")

    @property
    def lock(self) -> Path:
        """Where the hub's library locks the blob."""
        folder, cache = self.blob.parents[1], self.blob.parents[2]
        return cache / ".locks" / folder.name / f"{self.blob.name}.lock"

    @property
    def coming(self) -> int:
        """Bytes that are not here yet."""
        if self.blob.exists():
            return 0
        return self.bytes - (self.part.stat().st_size if self.part.exists() else 0)


def obtain(model: Model, agree: Callable[[Model], bool]) -> None:
    """Tell what the model is, fetch what is missing of it, check all of it, say what to type."""
    offers = {file: ask_hub(model, file) for file in model.files if not cached(model, file)}
    coming = sum(offer.coming for offer in offers.values())
    print("\n".join(introduction(model, coming, memory())))
    refuse_full_disk(coming)
    if coming and not agree(model):
        print("nothing was downloaded")
        return
    for file in model.files:
        if file in offers:
            fetch(model, file, offers[file])
        else:
            check_cached(model, file)
    print(f"all {len(model.files)} files are here and right: {find(model.name)}")
    if model.memory:  # taesd has none: it is a part of a model
        options = f" {model.options}" if model.options else ""
        script_path = Path("experiments", "text2image.py")
        print(f'next: {PYTHON} {script_path} --weights {model.name}{options} "a castle on a hill"')


def introduction(model: Model, coming: int, has: Memory) -> list[str]:
    here = "" if coming else ", which is here already"
    needs = ", ".join(f"{gigabytes(need)} in {p}" for p, need in model.memory.items())
    lines = [
        f"{model.name}: {model.what}",
        f"from      {model.repo}, revision {model.revision[:12]}",
        f"licence   {model.licence}, {model.licence_url}",
        f"download  {gigabytes(coming)} of {told_bytes(model, model.bytes)}{here}",
        f"into      {constants.HF_HUB_CACHE} ({gigabytes(free_disk())} free)",
    ]
    if needs:
        lines.append(f"memory    about {needs}; this machine: {describe_memory(has)}")
    if needs and not fitting(model, has):
        lines.append("warning   this machine has too little memory to run it")
    return lines


def refuse_full_disk(coming: int) -> None:
    if coming > free_disk():
        raise UsageError(
            f"{gigabytes(coming)} are to come, and {describe_disk()}; free some, or set HF_HOME to "
            f"a folder on another disk"
        )


def agreed(model: Model) -> bool:
    return True


def ask(model: Model) -> bool:
    """Ask the person at the terminal; without one, say how to do without."""
    if not sys.stdin.isatty():
        raise UsageError(f"no terminal to ask at; to download, type {command(model.name)} --yes")
    print("download? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# --- one file ------------------------------------------------------------------------------------


def ask_hub(model: Model, file: File) -> Offer:
    """What the hub publishes; UsageError where it is not what the catalogue pins."""
    url = hf_hub_url(model.repo, file.path, revision=model.revision)
    found = get_hf_file_metadata(url)
    if found.size is None or not DIGEST.fullmatch(found.etag or ""):
        raise UsageError(f"{url} tells no size or no checksum; is HF_ENDPOINT a Hugging Face hub?")
    published = found.etag if len(found.etag) == 64 else file.sha256  # git's SHA-1 tells nothing
    if file.sha256 and (found.size, published) != (file.bytes, file.sha256):
        raise UsageError(
            f"{file.path} of {model.repo} has changed: the hub publishes {found.size} bytes with "
            f"checksum {found.etag}, the catalogue pins {file.bytes} with {file.sha256}; "
            f"nothing was fetched, look for a newer weights/catalog.json"
        )
    folder = repo_folder_name(repo_id=model.repo, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE, folder, "blobs", found.etag)
    return Offer(url, found.size, file.sha256 or found.etag, blob)


def fetch(model: Model, file: File, offer: Offer) -> None:
    """The file into the cache, right or not at all. `hf_hub_download` starts afresh after every
    interruption (huggingface_hub since 1.31), so what it would fetch is put where it looks first,
    and left for it to give the file its name."""
    for place in (offer.blob, offer.lock):
        place.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(offer.lock):
        if not offer.blob.exists():
            receive(file, offer)
        fresh = offer.blob if offer.blob.exists() else offer.part
        check(fresh, f"{file.path} of {model.repo}", offer.bytes, offer.digest)
        os.replace(fresh, offer.blob)
    named = Path(hf_hub_download(model.repo, file.path, revision=model.revision))
    if not named.is_symlink():  # on Windows it may be a copy: one is enough
        offer.blob.unlink(missing_ok=True)


def receive(file: File, offer: Offer) -> None:
    """What is missing of the part."""
    if offer.coming < 0:
        offer.part.unlink()
    with offer.part.open("ab") as part:
        http_get(
            offer.url,
            part,
            resume_size=part.tell(),
            headers=build_hf_headers(),
            expected_size=offer.bytes,
            displayed_filename=file.path,
        )


def check_cached(model: Model, file: File) -> None:
    """A file that was here before: against the catalogue or, where that pins nothing, against its
    name in the cache, which is the checksum that the hub published."""
    path = cached(model, file)
    digest = file.sha256 or path.resolve().name
    if DIGEST.fullmatch(digest):
        size = file.bytes if file.sha256 else path.stat().st_size
        check(path, f"{file.path} of {model.repo}", size, digest)


def check(path: Path, name: str, size: int, digest: str) -> None:
    """A wrong file is deleted: UsageError says what was found."""
    found_size, found = path.stat().st_size, digest_of(path, name, len(digest))
    if (found_size, found) != (size, digest):
        for place in (path.resolve(), path):
            place.unlink(missing_ok=True)
        raise UsageError(
            f"{name} is damaged: {found_size} bytes with checksum {found}, expected {size} with "
            f"{digest}; it was deleted, type the same command to fetch it again"
        )


def digest_of(path: Path, name: str, letters: int) -> str:
    """SHA-256 where it has 64 letters; git's SHA-1 of a blob, which begins with the size, where 40.
    A bar shows on the terminal while a large file is read."""
    size = path.stat().st_size
    seen = hashlib.sha256() if letters == 64 else hashlib.sha1(b"blob %d\0" % size)
    bar = tqdm(
        total=size, desc=f"checking {name[-40:]}", unit="B", unit_scale=True, disable=None, delay=1
    )
    with path.open("rb") as file, bar:
        while block := file.read(BLOCK):
            seen.update(block)
            bar.update(len(block))
    return seen.hexdigest()


# --- what went wrong -----------------------------------------------------------------------------

AGAIN = "what has come is kept, type the same command to go on"
REASONS = (  # the first that fits: an error of the hub's library → what to tell
    (OfflineModeIsEnabled, "HF_HUB_OFFLINE is set and {name} is not whole here; unset it"),
    (GatedRepoError, "{repo} asks to accept its terms: do so at {page}, then type hf auth login"),
    (RepositoryNotFoundError, "the hub shows no {repo}; if {page} does, type hf auth login"),
    (RevisionNotFoundError, "{repo} has no revision {revision} any more; see {page}"),
    (RemoteEntryNotFoundError, "{repo} lacks a file of the catalogue ({error}); see {page}"),
    (HfHubHTTPError, "the hub refused ({error}); try later: " + AGAIN),
    (HTTPError, "the connection to {hub} failed ({error}): " + AGAIN),
    (OSError, "the download broke off ({error}): " + AGAIN),
)


@contextmanager
def in_one_line(model: Model) -> Iterator[None]:
    """Whatever stops a download is told in one line; what has come stays for the next try."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped; {AGAIN}", file=sys.stderr)
        sys.exit(script.INTERRUPTED)
    except (HTTPError, OSError) as error:
        raise UsageError(reason(error, model)) from None


def reason(error: Exception, model: Model) -> str:
    code = getattr(error, "errno", None)
    if code == errno.ENOSPC:
        return f"the disk is full, {describe_disk()}; free some: {AGAIN}"
    if code is not None and getattr(error, "filename", None):
        return f"cannot write {error.filename}: {error.strerror}; set HF_HOME to another folder"
    text = next(text for kind, text in REASONS if isinstance(error, kind))
    return text.format(
        name=model.name,
        repo=model.repo,
        revision=model.revision,
        page=f"{constants.ENDPOINT}/{model.repo}",
        hub=constants.ENDPOINT,
        error=detail(error),
    )


def detail(error: Exception) -> str:
    """One line: the answer where there was one, else what the library says."""
    answer = getattr(error, "response", None)
    told = str(error) if answer is None else f"{answer.status_code} for {answer.url}"
    return " ".join(told.split())


if __name__ == "__main__":
    script.run(main)
