"""A package's door: its names are loaded when they are first used, so that importing it starts no
Keras, and a script's --help comes at once."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def door(
    package: str, offered: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package takes as its __getattr__, __dir__ and __all__.

    offered: module inside of the package → the names that it holds, as a text.
    """
    holder = {name: module for module, names in offered.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in holder:
            raise AttributeError(
                f"{package} has no {name!r}; it offers {', '.join(sorted(holder))}"
            )
        return getattr(import_module(f"{package}.{holder[name]}"), name)

    return load, lambda: sorted(holder), sorted(holder)
