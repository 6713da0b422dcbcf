"""The catalogue: the models that weights/download.py fetches, and where they lie once it has.

They lie in the user's Hugging Face cache, which other programs share. Nothing here goes online.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from . import shipped

CATALOG = shipped.SHIPPED / shipped.CATALOG


@dataclass(frozen=True)
class File:
    """A file of a repository on the hub."""

    path: str  # with /
    bytes: int  # exact where the SHA-256 is known, else about
    sha256: str | None  # None: not pinned, what the hub publishes is taken


@dataclass(frozen=True)
class Model:
    """An entry of the catalogue."""

    name: str
    what: str
    repo: str
    revision: str
    licence: str
    licence_url: str
    memory: dict[str, int]  # precision → bytes that a run needs, about; none: no model by itself
    options: str  # what to add to a script's command line
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """The size of the download, and of what then lies on disk."""
        return sum(file.bytes for file in self.files)

    @property
    def pinned(self) -> bool:
        """Whether the catalogue knows every file's exact size and SHA-256."""
        return all(file.sha256 for file in self.files)


def read_catalog() -> dict[str, Model]:
    """Name → model, in the order of the file."""
    if not CATALOG.is_file():  # an installed package comes without the folder weights/
        return {}
    found = json.loads(CATALOG.read_text(encoding="utf-8"))
    return {name: to_model(name, found["licences"], **m) for name, m in found["models"].items()}


def to_model(
    name: str,
    licences: dict[str, dict[str, str]],
    licence: str,
    files: list[dict],
    options: str = "",
    **rest,
) -> Model:
    return Model(
        name=name,
        licence=licences[licence]["name"],
        licence_url=licences[licence]["url"],
        options=options,
        files=tuple(File(**file) for file in files),
        **rest,
    )


def cached(model: Model, file: File) -> Path | None:
    """Where the file lies in the Hugging Face cache; None where it does not, or not whole."""
    found = try_to_load_from_cache(model.repo, file.path, revision=model.revision)
    if not isinstance(found, str):
        return None
    whole = file.sha256 is None or Path(found).stat().st_size == file.bytes
    return Path(found) if whole else None


def find(name: str) -> Path | None:
    """A downloaded model's folder, or its file where it is a single one; None where the catalogue
    does not have the name, or a file of the model is not here."""
    model = read_catalog().get(name)
    if model is None:
        return None
    places = [cached(model, file) for file in model.files]
    if not all(places):
        return None
    depth = len(Path(model.files[0].path).parts)
    return places[0] if len(places) == 1 else places[0].parents[depth - 1]
