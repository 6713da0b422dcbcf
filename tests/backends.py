"""Our networks' answers to the golden questions, on a backend of choice.

Keras takes one backend for the life of a process, so each has a process of its own:

    KERAS_BACKEND=jax python -m tests.backends checkpoint-folder anatomy answers.npz
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from stable_diffusion_tf import StableDiffusion, attention
from tests import oracles
from tests.golden.make_networks import GOLDEN, RUN, run_contexts
from tests.oracles import ANATOMIES

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("text_encoder", "unet", "encoder", "decoder")


def golden(name: str) -> dict[str, np.ndarray]:
    """The oracle's answers for an anatomy."""
    with np.load(GOLDEN) as found:
        return {k.split("/")[1]: found[k] for k in found if k.startswith(f"{name}/")}


def write_checkpoint(folder: Path, name: str) -> Path:
    """The folder, with the weights that the oracle had."""
    oracles.write(folder, ANATOMIES[name], json.loads(str(golden(name)["names"])))
    return folder


def run(sd: StableDiffusion, name: str) -> np.ndarray:
    """Where a short run ends."""
    *_, last = sd.denoise(*run_contexts(ANATOMIES[name]), **RUN)
    return last.x_prev


def answers(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Ours, on the backend of this process: the golden questions, and one of them in chunks."""
    sd, asked = StableDiffusion.load(folder), oracles.inputs(ANATOMIES[name])
    made = {part: sd.function(part)(*asked[part]) for part in PARTS} | {"denoise": run(sd, name)}
    attention.CHUNK_BYTES = 2**14
    sd.functions.clear()
    return made | {"decoder in chunks": sd.function("decoder")(*asked["decoder"])}


def answers_on(backend: str, folder: Path, name: str) -> dict[str, np.ndarray]:
    """Ours, on another backend."""
    return told_by("tests.backends", backend, folder / f"{backend}.npz", str(folder), name)


def told_by(module: str, backend: str, out: Path, *words: str) -> dict[str, np.ndarray]:
    """What a module writes into `out`, on a backend of choice, in a process that ends with it."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words, str(out)],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        return dict(found)


if __name__ == "__main__":
    np.savez(sys.argv[3], **answers(Path(sys.argv[1]), sys.argv[2]))
