"""Networks, or a checkpoint of any format → a diffusers folder that diffusers itself loads."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..config import to_dict
from ..disk import whole_file
from ..errors import UsageError
from ..tokenizer import SPECIALS, read_vocabulary
from .folder import EXTRAS, FILES
from .mapped import given_back_meanwhile
from .names import diffusers_shape, to_diffusers, variables
from .tensors import Source

DTYPES = {"float32": "F32", "float16": "F16"}  # NumPy's name → safetensors'
SCHEDULER = {  # the schedule of scheduler.py, as diffusers wants it told
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
INDEX = {  # model_index.json: which class of which library reads a subfolder
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
TOKENIZER = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": 77,
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}


class Networks:
    """The weights of live networks as a source, widened to float32."""

    def __init__(self, networks: Sequence[keras.Model]):
        self.place = "memory"
        self.found = {k: v for network in networks for k, v in variables(network).items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: diffusers_shape(variable) for key, variable in self.found.items()}

    def get(self, key: str) -> np.ndarray:
        variable = self.found[key]
        value = keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))
        return to_diffusers(value, variable)


def write_model(
    folder: Path,
    parts: Mapping[str, tuple[Any, Source]],
    scheduler: Mapping[str, Any],
    dtype: str,
) -> None:
    """A whole checkpoint, parts: 'text_encoder', 'unet' and 'vae' → config, weights. scheduler:
    diffusers' config of it; {} takes the DDIM of SD 1.x, one without a class is DDIM's. Raises
    UsageError."""
    scheduler = {"_class_name": SCHEDULER["_class_name"]} | (dict(scheduler) or SCHEDULER)
    with telling(folder):
        for part, (config, source) in parts.items():
            write_source(folder, part, config, source, dtype)
        write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
        write_tokenizer(folder / "tokenizer")
        write_json(
            folder / "model_index.json",
            INDEX | {"scheduler": ["diffusers", scheduler["_class_name"]]},
        )


def write_part(
    folder: Path, part: str, config: Any, networks: Sequence[keras.Model], dtype: str
) -> None:
    """A part's weights and config from live networks, each file whole or not there at all."""
    write_source(folder, part, config, Networks(networks), dtype)


def write_source(folder: Path, part: str, config: Any, source: Source, dtype: str) -> None:
    """A part's weights and config from where they lie. Raises UsageError."""
    if dtype not in DTYPES:
        raise UsageError(f"{dtype!r} cannot be written; choose {' or '.join(DTYPES)}")
    place = folder / part
    place.mkdir(parents=True, exist_ok=True)
    with whole_file(place / FILES[part]) as fresh, given_back_meanwhile():
        write_tensors(fresh, source, dtype)
    write_json(place / "config.json", told_besides(part, config) | to_dict(config))


def told_besides(part: str, config: Any) -> dict[str, Any]:
    """What diffusers or transformers want told that our configs take for granted."""
    levels = len(getattr(config, "block_out_channels", ()))
    return {
        "text_encoder": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "hidden_act": "quick_gelu",
        },
        "unet": {"_class_name": "UNet2DConditionModel"},
        "vae": {
            "_class_name": "AutoencoderKL",
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
        },
    }[part]


def write_tensors(path: Path, source: Source, dtype: str) -> None:
    """A safetensors file, tensor after tensor: the library's own writer wants all of them in
    memory. The format: huggingface.co/docs/safetensors."""
    shapes = {k: v for k, v in source.shapes().items() if k not in EXTRAS["text_encoder"]}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for key, shape in shapes.items():
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[key] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)  # the numbers begin at a multiple of 8
    with open(path, "wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        for key in shapes:
            file.write(rounded(source, key, dtype).data)


def rounded(source: Source, key: str, dtype: str) -> np.ndarray:
    """A tensor in the dtype to write. Raises UsageError where it has numbers beyond: float16 ends
    at 65,504."""
    tensor = source.get(key)
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(tensor, dtype)
    if np.isfinite(tensor).all() and not np.isfinite(made).all():
        raise UsageError(f"{key} of {source.place} is too large for {dtype}; save it as float32")
    return made


def write_tokenizer(folder: Path) -> None:
    """The vocabulary in transformers' files."""
    vocabulary = read_vocabulary()
    merges = sorted(vocabulary.ranks, key=vocabulary.ranks.get)
    write_json(folder / "vocab.json", vocabulary.ids | SPECIALS)
    write_json(folder / "tokenizer_config.json", TOKENIZER)
    with whole_file(folder / "merges.txt") as fresh:
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as fresh:
        fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def telling(folder: Path) -> Iterator[None]:
    """Say in one line that the disk will not take it."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write {folder}: {error.strerror}; free it or name another folder"
        ) from None
