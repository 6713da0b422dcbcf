"""How long does a picture take, and how much memory, beside diffusers on the same weights?

Each stack runs in processes of its own, in turns, so that a noisy machine is noisy for all. A
process starts, loads the phantom, draws one 25-step picture, saves it, and draws a second one.
The table gives the median over the turns and the ratio to the last stack's.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "weights" / "phantom"
PROMPT, STEPS, GUIDANCE = "a cat left of an apple on a blue background", 25, 7.5
ROWS = {
    "first": ("from the shell prompt to the saved file", "s"),
    "second": ("a second picture in the same process", "s"),
    "memory": ("peak resident memory", "GB"),
}


def ours():
    """seed → picture (H, W, 3) uint8, by this project on the backend that KERAS_BACKEND names."""
    from xray.script import load_model

    sd = load_model("phantom")
    return lambda seed: sd.generate(PROMPT, steps=STEPS, guidance=GUIDANCE, seed=seed)[0]


def diffusers():
    """seed → picture (H, W, 3) uint8, by diffusers and transformers on PyTorch."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    from stable_diffusion_tf.tokenizer import Tokenizer

    text = CLIPTextModel.from_pretrained(WEIGHTS / "text_encoder", dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(WEIGHTS / "unet", torch_dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(WEIGHTS / "vae", torch_dtype=torch.float32)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    ids = torch.from_numpy(Tokenizer()([PROMPT, ""])).long()

    @torch.no_grad()
    def draw(seed: int) -> np.ndarray:
        cond, uncond = text(ids)[0].chunk(2)
        both = torch.cat([uncond, cond])
        x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            eps_uncond, eps_cond = unet(torch.cat([x, x]), t, both).sample.chunk(2)
            eps = eps_uncond + GUIDANCE * (eps_cond - eps_uncond)
            x = scheduler.step(eps, t, x).prev_sample
        image = vae.decode(x / vae.config.scaling_factor).sample[0].permute(1, 2, 0).numpy()
        return np.rint(np.clip(image, -1, 1) * 127.5 + 127.5).astype(np.uint8)

    return draw


STACKS = {"tensorflow": ours, "openvino": ours, "jax": ours, "torch": ours, "diffusers": diffusers}


def child(stack: str, started: float) -> None:
    """One process: print what it took as a line of JSON."""
    import resource

    if STACKS[stack] is ours:
        os.environ["KERAS_BACKEND"] = stack
    draw = STACKS[stack]()
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(draw(0)).save(Path(folder) / "image.png")
    first = time.time() - started
    again = time.perf_counter()
    draw(1)
    second = time.perf_counter() - again
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    print(json.dumps({"first": first, "second": second, "memory": memory}))


def run_once(stack: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--stack", stack, "--started", str(time.time())]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(
    turns: int = 3,
    stacks: tuple[str, ...] = tuple(STACKS),
    stack: str | None = None,
    started: float | None = None,
) -> None:
    """Time a phantom picture here, on each backend, and in diffusers.

    Args:
        turns: processes for each stack, taken in turns.
        stacks: which to compare; the last is what the ratios are of.
        stack: what a process is started with.
        started: when that process was started, in seconds since 1970.
    """
    if stack:
        child(stack, started or time.time())
        return
    taken = {name: [] for name in stacks}
    for _ in range(turns):
        for name, results in taken.items():
            results.append(run_once(name))
    print(f"{STEPS} steps of the phantom, median of {turns}; in brackets of {stacks[-1]}'s")
    print(f"{'':12}" + "".join(f"{row:>44}" for row, _ in ROWS.values()))
    for name in taken:
        cells = []
        for key, (_, unit) in ROWS.items():
            mine, theirs = (statistics.median(r[key] for r in taken[s]) for s in (name, stacks[-1]))
            cells.append(f"{mine:.2f} {unit} ({mine / theirs:.2f})")
        print(f"{name:12}" + "".join(f"{cell:>44}" for cell in cells))


if __name__ == "__main__":
    tyro.cli(main)
