"""The record of one run on disk: film.json says what was run, frames/ holds one file a step."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

FIELDS = ("x", "eps_uncond", "eps_cond", "eps", "x0", "x_prev")


def start_film(folder: Path, facts: dict[str, Any]) -> None:
    """Write film.json and make room for the frames."""
    (folder / "frames").mkdir(parents=True)
    write_whole(folder / "film.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def add_frame(folder: Path, step: Any) -> None:
    """Save the arrays of one step as frames/000.safetensors …: each file is whole or not there.

    step: a `stable_diffusion_tf.Step`; its arrays are (b, h, w, 4) float32.
    """
    arrays = {name: np.ascontiguousarray(getattr(step, name)) for name in FIELDS}
    place = folder / "frames" / f"{step.index:03d}.safetensors"
    fresh = place.with_suffix(".part")
    save_file(arrays, fresh, metadata={"t": str(step.t), "index": str(step.index)})
    os.replace(fresh, place)


def write_whole(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".part")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
