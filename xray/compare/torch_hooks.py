"""What the modules of a torch network give out, under our addresses."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def hooked(module: Any, root: str = "unet") -> Iterator[dict[str, np.ndarray]]:
    """Inside, what is yielded holds whatever the modules of a torch network gave out when it was
    last called: address → array, pictures channels last, in order of execution.

    module: diffusers' `UNet2DConditionModel`, whose modules bear our addresses behind `root`.
    """
    reads: dict[str, np.ndarray] = {}
    calls: Counter[str] = Counter()

    def listen(address: str):
        def hear(_module: Any, _inputs: Any, out: Any) -> None:
            calls[address] += 1
            call = address if calls[address] == 1 else f"{address}#{calls[address]}"
            found = dict(tensors(out))
            for place, tensor in found.items():
                alone = len(found) == 1  # diffusers wraps even a single output
                reads[call if alone else f"{call}:{place}"] = channels_last(tensor)

        return hear

    def start(*_: Any) -> None:
        calls.clear()
        reads.clear()

    handles = [module.register_forward_pre_hook(start)]
    for name, part in module.named_modules():
        handles.append(part.register_forward_hook(listen(f"{root}.{name}" if name else root)))
    try:
        yield reads
    finally:
        for handle in handles:
            handle.remove()


def tensors(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors in nested outputs, each with its place: '0', '1.2', 'sample'."""
    if hasattr(value, "detach"):
        yield place, value
        return
    inside = value if isinstance(value, Mapping) else dict(enumerate(listed(value)))
    for key, part in inside.items():
        yield from tensors(part, f"{place}.{key}" if place else str(key))


def listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def channels_last(tensor: Any) -> np.ndarray:
    """A torch tensor as float32; (b, c, h, w) → (b, h, w, c)."""
    array = tensor.detach().float().cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(array, 1, -1) if array.ndim == 4 else array.copy())
