"""The same values from another precision or another backend, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.lcm import guidance_embedding

if TYPE_CHECKING:  # its own process starts Keras, not who asks
    from stable_diffusion_tf import StableDiffusion

Asked = Mapping[str, Sequence[np.ndarray]]  # part → what its network is given

MOST = 1e9  # bytes of values that are all compared
BLOCKS = "*layers.[0-9]", "*layers.[1-9][0-9]", "*blocks.[0-9]"  # what each gives out

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch", "openvino": "OpenVINO"}


def inputs_of(sd: "StableDiffusion", prompt: str, steps: int, guidance: float, seed: int) -> Asked:
    """What each network of a run is given: token ids, the latent of the step half way, that of the
    end."""
    ids = sd.tokenize([prompt, ""])
    context, uncond = np.split(sd.function("text_encoder")(ids), 2)
    taken = [*sd.denoise(context, uncond, steps, guidance, seed=seed)]
    half, both = taken[len(taken) // 2], np.concatenate([uncond, context])
    times, width = np.full(2, half.t, np.int32), sd.unet_config.time_cond_proj_dim
    lcm = [guidance_embedding(guidance, width).repeat(2, axis=0)] if width else []
    return {
        "text_encoder": (ids,),
        "unet": (np.repeat(half.x, 2, axis=0), times, both, *lcm),
        "decoder": (taken[-1].x_prev / np.float32(sd.vae_config.scaling_factor),),
    }


def worth_comparing(sd: "StableDiffusion") -> str:
    """Globs of all values, or, where they are more than a gigabyte, of what blocks give out."""
    from xray.probe import taps
    from xray.probe.addresses import matches

    held = {one.address: one.bytes for one in taps(sd)}
    there = [glob for glob in BLOCKS if any(matches(glob, one) for one in held)]
    return "*" if sum(held.values()) <= MOST else " ".join(there)


def reads_of(sd: "StableDiffusion", asked: Asked, pattern: str = "*") -> dict[str, np.ndarray]:
    """What the networks of a model hold when each is called once: address → float32 array, in
    order of execution. asked: part ('text_encoder', 'unet', 'encoder' or 'decoder') → its inputs;
    pattern: globs of the addresses, with spaces between them.
    """
    from xray.probe.instrumented import instrument

    seen = instrument(sd, pattern.split())
    for part, arrays in asked.items():
        seen.function(part)(*arrays)
        sd.finish(part)
    return {address: seen.reads[address] for address in seen.reads.dims}  # JAX sorts its outputs


def reads_on(
    backend: str,
    asked: Asked,
    weights: str | Path = "phantom",
    precision: str = "float32",
    pattern: str = "*",
) -> dict[str, np.ndarray]:
    """The same on another backend, in a process of its own: Keras has one for its lifetime.

    weights: as `StableDiffusion.load` takes them. Raises UsageError where the backend is not
    installed, and for what the model refuses.
    """
    from stable_diffusion_tf.compiled import Call, pass_on

    check_installed(backend)
    arrays = tuple(array for part in asked.values() for array in part)

    def compute(*_: np.ndarray) -> dict[str, np.ndarray]:
        return answered(backend, asked, weights, precision, pattern)

    return pass_on(Call(backend, arrays, compute, never_known))


def never_known(*_: Any) -> None:
    raise LookupError("what another process reads is known when it has")


def answered(
    backend: str, asked: Asked, weights: str | Path, precision: str, pattern: str
) -> dict[str, np.ndarray]:
    """What the other process reads."""
    with TemporaryDirectory() as folder:
        given, made = Path(folder, "given.npz"), Path(folder, "made.npz")
        np.savez(given, **{f"{k}/{i}": array for k in asked for i, array in enumerate(asked[k])})
        words = [str(weights), precision, pattern, str(given), str(made)]
        done = subprocess.run(
            [sys.executable, "-m", "xray.compare.backends", *words],
            env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": search_path()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == REFUSED:
            raise UsageError(done.stdout.strip())
        if done.returncode:
            raise RuntimeError(f"on {backend}: {done.stderr}")
        with np.load(made) as found:
            return dict(found)


REFUSED = 2  # the status of a process that was asked for what it cannot do


def check_installed(backend: str) -> None:
    if backend not in BACKENDS:
        raise UsageError(f"no backend {backend!r}; choose {', '.join(BACKENDS)}")
    if find_spec(backend) is None:
        raise UsageError(f"{BACKENDS[backend]} is not installed; type pip install {backend}")


def search_path() -> str:
    """Where the other process finds this package, from whatever folder it is started."""
    root, before = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
    return os.pathsep.join([root, before] if before else [root])


def answer(weights: str, precision: str, pattern: str, given: str, made: str) -> None:
    """The other process: from one file of arrays to the other."""
    from stable_diffusion_tf import StableDiffusion

    asked: dict[str, list[np.ndarray]] = {}
    with np.load(given) as arrays:
        for name in arrays:
            asked.setdefault(name.split("/")[0], []).append(arrays[name])
    try:
        found = reads_of(StableDiffusion.load(weights, precision), asked, pattern)
    except UsageError as error:
        print(error)
        sys.exit(REFUSED)
    np.savez(made, **found)


if __name__ == "__main__":
    answer(*sys.argv[1:])
