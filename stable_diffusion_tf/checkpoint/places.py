"""Where a model lies that is asked for by its name. Imports no Keras."""

from pathlib import Path

from ..disk import is_there
from ..errors import UsageError
from .catalog import find, read_catalog
from .shipped import DOWNLOAD, SHIPPED


def locate(name: str | Path) -> Path:
    """Where the model of that name or path lies: shipped, on disk, or downloaded.

    Raises UsageError, which tells what to type.
    """
    shipped = {path.parents[1].name: path.parents[1] for path in SHIPPED.glob("*/unet/config.json")}
    places = [shipped.get(str(name)), Path(name), find(str(name))]
    found = next((place for place in places if place and is_there(place)), None)
    if found:
        return found
    if str(name) in read_catalog():
        raise UsageError(f"{name} is not on this machine; type: {DOWNLOAD} {name}")
    raise UsageError(
        f"no weights at {name}: it is no folder, no file, not shipped as {', '.join(shipped)} is, "
        f"and not in the catalogue; type: {DOWNLOAD}"
    )
