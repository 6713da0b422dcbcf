"""Do all experiments run on Stable Diffusion 1.x at 512×512, and in how much memory?

Each runs as a person would start it, in a process of its own, with options that are over in some
minutes: seconds, UNet evaluations and the peak of resident memory are what its report says, with
what the script foretold of its seconds and memory, in per cent of the truth, in brackets. No
weights are needed: a full-size checkpoint of random ones (4.3 GB) takes as long and as much memory
as any. What a script takes on the phantom, with its own options, is what its page in the gallery
says. Reports stay in --out, and what has one is not run again.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro
from stable_diffusion import in_another_process, write_weights

ROOT = Path(__file__).resolve().parent.parent
FEW = "--pictures 2 --steps 1"
RUNS = {  # script → options with which it is over in some minutes
    "text2image": "--steps 5",
    "test_anatomy": "",
    "test_precision": "--steps 1",
    "test_image_encoder": "--size 512",
    "test_image_encoder_noise_corruption": "--number 2 --shares 0 0.1 1 --amplitudes 0 1",
    "test_image_decoder": "docs/gallery/text2image.webp",
    "test_latent_statistics": "--number 8",
    "test_text_encoder": "",
    "text_semantic_similarity": "",
    "text_padding_and_end": FEW,
    "text_layers": f"'a cat' --layers 12 {FEW}",
    "text_image_interpolation": f"{FEW} --points 3",
    "text_latent_interpolation": f"{FEW} --points 3",
    "text_symbol_image2image": "--number 1 --steps 5 --batch 1 --held 1 --rivals 2 --pictures 1",
    "test_noise_schedule": "--number 4",
    "test_stabilizing_noise": "--pictures 2 --steps 4",
    "test_fast_sampling": "--pictures 2 --counts 1 2 --steps 3",
    "test_ddim_inversion": "--number 1 --steps 1 --guidance 1 7.5",
    "test_training_step": "--number 4",
    "test_time_and_context": f"{FEW} --blocks mid_block",
    "test_guidance": "--pictures 2 --steps 2 --scales 1 7.5",
    "test_unet_features": "--number 8 --steps 1",
    "test_cross_attention": f"'a cat' {FEW}",
    "test_unet_ablation": f"{FEW} --places unet.mid_block.resnets*",
    "test_h_space": f"{FEW} --scales 0 1 2",
    "text_prompt_to_prompt": "--pictures 2 --steps 2",
}


def run_once(script: str, precision: str, weights: Path, out: Path) -> dict:
    """What a script's report says, or its last line where it has none."""
    folder = out / f"{script}-{precision}"
    if found := report_in(folder):
        return found
    told = ["--precision", precision, "--weights", weights, "--out", folder]
    words = [*shlex.split(RUNS[script]), *map(str, told)]
    command = [sys.executable, f"experiments/{script}.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = (done.stderr or done.stdout).strip().splitlines()
    failed = lines[-1] if lines else f"status {done.returncode}"
    return report_in(folder) or {"failed": failed}


def report_in(folder: Path) -> dict | None:
    reports = sorted(folder.glob("*/*/report.json"))
    return json.loads(reports[-1].read_text("utf-8")) if reports else None


def row(script: str, told: Sequence[dict]) -> str:
    """A line of the table: script, options, UNet evaluations, then each precision, the phantom."""
    counts = [one["evaluations"].get("unet", 0) for one in told if "failed" not in one]
    options = f"`{RUNS[script]}`" if RUNS[script] else ""
    cells = [f"`{script}`", options, str(counts[0]) if counts else ""]
    page = json.loads((ROOT / f"docs/gallery/{script}.json").read_text("utf-8"))
    for one in (*told, page):
        cells += [one["failed"], ""] if "failed" in one else taken(one)
    return f"| {' | '.join(cells)} |"


def taken(report: dict) -> list[str]:
    """Seconds and memory; (+10%) where so much more of it was foretold before the work."""
    foretold = report.get("foretold", {})
    cells = [f"{report['seconds']:.0f} s", f"{report['peak_gb']:.1f} GB"]
    for i, name in enumerate(("seconds", "peak_gb")):
        if foretold.get(name):
            cells[i] += f" ({foretold[name] / report[name] - 1:+.0%})"
    return cells


def main(
    out: Path = Path("outputs/full-size"),
    weights: Path | None = None,
    scripts: tuple[str, ...] = tuple(RUNS),
    precisions: tuple[str, ...] = ("float32", "bfloat16"),
) -> None:
    """Run the experiments at full size, and print a table.

    Args:
        out: the folder to keep reports in.
        weights: a diffusers folder of SD 1.x; by default one of random weights is made in `out`.
        scripts: names of files in experiments/.
        precisions: each is a pair of columns.
    """
    out = out.resolve()
    made = weights or out / "sd-random"
    if weights is None and not (made / "model_index.json").exists():
        made.mkdir(parents=True, exist_ok=True)
        in_another_process(write_weights, made)
    pairs = [cell for name in (*precisions, "phantom") for cell in (name, "")]
    heads = ["script", "options", "UNet evaluations", *pairs]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for script in scripts:
        print(row(script, [run_once(script, name, made, out) for name in precisions]), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
