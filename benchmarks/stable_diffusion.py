"""How quick and how small is Stable Diffusion 1.x at 512×512, beside diffusers and keras-cv? On
OpenVINO also beside its own way, diffusers' UNet converted (the UNet alone). "filmed" keeps a film
of all maps of cross-attention besides.

No weights are needed: diffusers writes a full-size checkpoint of random ones (4.3 GB, in a
temporary folder), which take as long and as much memory as any. Each stack runs in processes of
its own, in turns, so that a noisy machine is noisy for all: from prompt to picture in a few steps.
The table gives the median time of a UNet call, for both halves of the guidance, the first left out
as it compiles, the peak of resident memory over the whole run, and the instruction set that oneDNN
computed with; --isa AVX2 holds all stacks to that of a CPU without AVX-512.
"""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from itertools import pairwise
from pathlib import Path
from typing import Literal

import tyro

from stable_diffusion_tf.machine import INSTRUCTION_SETS, kernels

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a photograph of an astronaut riding a horse"
Report = Callable[[], None]  # called before the first UNet call and after each


def write_weights(folder: Path) -> None:
    """A whole checkpoint in float32, its weights as torch draws them."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from stable_diffusion_tf.checkpoint.write import INDEX, SCHEDULER, write_json, write_tokenizer

    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    vae = AutoencoderKL(
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        sample_size=512,
    )
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    DDIMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    write_tokenizer(folder / "tokenizer")
    write_json(folder / "model_index.json", INDEX | {"scheduler": ["diffusers", "DDIMScheduler"]})


def ours(folder: Path, precision: str, steps: int, report: Report) -> None:
    from xray.script import load_model

    sd = load_model(str(folder), precision)
    context = sd.encode_text([PROMPT, ""])
    sd.finish("text_encoder")
    sd.network("unet")
    report()
    latent = sd.draw_noise(seed=0)
    for step in sd.denoise(context[:1], context[1:], steps, latent=latent):
        latent = step.x_prev
        report()
    sd.finish("unet")
    sd.decode_latent(latent)


def filmed(folder: Path, precision: str, steps: int, report: Report) -> None:
    """Ours, with a film of all maps of cross-attention, the mean over the heads."""
    import xray
    from xray.script import load_model

    def told(rows):
        for row in rows:
            report()
            yield row
        report()

    sd = load_model(str(folder), precision)
    maps = xray.Probe("unet.*.attn2.probs", xray.Mean("head"))
    with tempfile.TemporaryDirectory() as out:
        out = Path(out) / "film"
        xray.Film.shoot(sd, PROMPT, probes=maps, steps=steps, out=out, progress=told)


def diffusers(folder: Path, precision: str, steps: int, report: Report) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    dtype = getattr(torch, precision)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)

    def after_step(*_):
        report()
        return {}

    report()
    pipeline(PROMPT, num_inference_steps=steps, callback_on_step_end=after_step)


def keras_cv(folder: Path, precision: str, steps: int, report: Report) -> None:
    """With weights of its own, as it reads no others; it calls the UNet once for each half."""
    import numpy as np

    from stable_diffusion_tf.tokenizer import Tokenizer
    from tests.keras_cv_models import module

    sd = module("stable_diffusion").StableDiffusion(jit_compile=False)
    sd._text_encoder = module("text_encoder").TextEncoder(77, download_weights=False)
    sd._diffusion_model = module("diffusion_model").DiffusionModel(
        512, 512, 77, download_weights=False
    )
    sd._decoder = module("decoder").Decoder(512, 512, download_weights=False)
    asked = {"tokens": Tokenizer()([PROMPT]), "positions": np.arange(77)[None]}
    context = sd.text_encoder.predict_on_batch(asked)
    halves, predict = [], sd.diffusion_model.predict_on_batch

    def counted(inputs):
        halves.append(predict(inputs))
        if len(halves) % 2 == 0:
            report()
        return halves[-1]

    sd.diffusion_model.predict_on_batch = counted
    report()
    sd.generate_image(context, num_steps=steps, seed=0)


def converted(folder: Path, precision: str, steps: int, report: Report) -> None:
    """OpenVINO's own way: the UNet alone, traced from diffusers' module."""
    import openvino as ov
    import torch
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    given = torch.randn(2, 4, 64, 64), torch.tensor(500), torch.randn(2, 77, 768)
    with torch.no_grad():
        model = ov.convert_model(unet, example_input=given)
    model.reshape({i: ov.PartialShape([*one.shape]) for i, one in enumerate(given)})
    hint = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision]}
    network, arrays = ov.compile_model(model, "CPU", hint), [one.numpy() for one in given]
    report()
    for _ in range(steps):
        network(arrays)
        report()


STACKS = {
    "ours": ours,
    "jax": ours,
    "torch": ours,
    "filmed": filmed,
    "openvino": ours,
    "openvino-filmed": filmed,
    "diffusers": diffusers,
    "keras-cv": keras_cv,
    "converted": converted,
}
BACKENDS = {  # the others are PyTorch's
    "ours": "tensorflow",
    "filmed": "tensorflow",
    "jax": "jax",
    "openvino": "openvino",
    "openvino-filmed": "openvino",
    "keras-cv": "tensorflow",
}
ROWS = [  # precision, stack
    ("float32", "ours"),
    ("float32", "filmed"),
    ("float32", "jax"),
    ("float32", "torch"),
    ("float32", "openvino"),
    ("float32", "openvino-filmed"),
    ("float32", "converted"),
    ("float32", "diffusers"),
    ("float32", "keras-cv"),
    ("bfloat16", "ours"),
    ("bfloat16", "openvino"),
    ("bfloat16", "openvino-filmed"),
    ("bfloat16", "converted"),
    ("bfloat16", "diffusers"),
    ("float16-storage", "ours"),
    ("int8-storage", "openvino"),
]


def child(stack: str, precision: str, folder: Path, steps: int) -> None:
    """One process: print what it took as a line of JSON."""
    import resource

    os.environ["KERAS_BACKEND"] = BACKENDS.get(stack, "torch")
    started, times = time.perf_counter(), []
    STACKS[stack](folder, precision, steps, lambda: times.append(time.perf_counter()))
    done = time.perf_counter()
    unit = 1 if sys.platform == "darwin" else 1024
    found = {
        "load": times[0] - started,
        "call": statistics.median(b - a for a, b in pairwise(times[1:])),
        "rest": done - times[-1],
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9,
        "kernels": kernels("openvino" if stack == "converted" else os.environ["KERAS_BACKEND"]),
    }
    print(json.dumps(found))


def run_once(stack: str, precision: str, folder: Path, steps: int, isa: str | None) -> dict:
    """What one process took, by a stack held to an instruction set, if one is named."""
    options = {"stack": stack, "precision": precision, "folder": folder, "steps": steps}
    told = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, __file__, *told]
    kept = os.environ | (held_to(isa) if isa else {})
    done = subprocess.run(command, cwd=ROOT, env=kept, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def held_to(isa: str) -> dict[str, str]:
    """What holds oneDNN to an instruction set, and MKL, which torch multiplies by on Intel's CPUs
    and which knows fewer of them."""
    return {"ONEDNN_MAX_CPU_ISA": isa, "MKL_ENABLE_INSTRUCTIONS": isa.split("_")[0]}


def compare(folder: Path, steps: int, turns: int, isa: str | None, stacks: Collection[str]) -> None:
    taken = {row: [] for row in ROWS if row[1] in stacks}
    for _ in range(turns):
        for (precision, stack), results in taken.items():
            results.append(run_once(stack, precision, folder, steps, isa))
    print(f"Stable Diffusion 1.x, 512×512, {steps} steps, guidance; median of {turns}")
    print(f"{'':33}{'to UNet':>10}{'UNet call':>12}{'ratio':>8}{'decode':>9}{'peak':>9}  kernels")
    for (precision, stack), results in taken.items():
        known = results[0].pop("kernels")
        row = {key: statistics.median(r[key] for r in results) for key in results[0]}
        peer = taken.get((precision, "diffusers"), taken["float32", "diffusers"])
        ratio = row["call"] / statistics.median(r["call"] for r in peer)
        print(
            f"{precision:17}{stack:16}{row['load']:>8.1f} s{row['call']:>10.2f} s{ratio:>8.2f}"
            f"{row['rest']:>7.1f} s{row['peak']:>6.2f} GB  {told(known)}"
        )


def told(found: dict) -> str:
    name = found["instruction_set"] if found["onednn"] else "no oneDNN"
    return f"{name}, {found['threads']} threads"


def in_another_process(work: Callable[[Path], None], folder: Path) -> None:
    """A process starts with the peak of the one that started it: this one is to stay small."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"no weights: {work.__name__} ended with status {process.exitcode}")


def main(
    turns: int = 2,
    steps: int = 4,
    folder: Path | None = None,
    isa: Literal[tuple(INSTRUCTION_SETS)] | None = None,
    stacks: tuple[str, ...] = tuple(STACKS),
    stack: str | None = None,
    precision: str = "float32",
) -> None:
    """Time a full-size run here, in diffusers and in keras-cv.

    Args:
        turns: processes for each row of the table, taken in turns.
        steps: steps of a run; the first is not counted.
        folder: a diffusers folder of SD 1.x; by default one with random weights is made.
        isa: the best instruction set that oneDNN may use, such as AVX2; by default the CPU's.
        stacks: which to compare, diffusers among them.
        stack: what a process of its own is started with.
        precision: likewise.
    """
    if stack:
        child(stack, precision, folder, steps)
    elif folder:
        compare(folder, steps, turns, isa, stacks)
    else:
        with tempfile.TemporaryDirectory() as made:
            in_another_process(write_weights, Path(made))
            compare(Path(made), steps, turns, isa, stacks)


if __name__ == "__main__":
    tyro.cli(main)
