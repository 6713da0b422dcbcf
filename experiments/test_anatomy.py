"""What is the model made of?

Every layer is walked in the order in which it runs, from the shapes alone: nothing is computed and
no weight is read. Each layer has its parameters and its multiply-accumulates (MACs): the products
inside of convolutions, dense layers and attention's two products; norms, activations and sums are
not counted. Layers are put together by the block that they lie in.

In the picture each box is a block, as wide as it has channels and as high as its grid has rows, so
that the UNet's U is seen: the further down, the coarser and the wider. Boxes with attention are
hatched. The bars say who has the parameters and who does the work of drawing one picture: the text
encoder reads the prompt and the empty one, the UNet is called for both at each step, the decoder
once, the encoder not at all.

SD 1.x (arXiv 2112.10752) has 1,066 M parameters, 81 % of them in the UNet, whose call takes 402
GMAC. The phantom has the same anatomy with a level, blocks and channels less; as it keeps the
vocabulary of 49,408 tokens, though it knows 83, half of its parameters are a table that is only
looked up in. The control: the walk finds exactly as many parameters as the checkpoint's tensors
have numbers, part by part.
"""

import csv
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.figures import anatomy as figures
from xray import script

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.methods.anatomy import Block, Layer

SD1 = {  # part → parameters, GMACs for 512 × 512 pixels; tests/experiments counts them again
    "text_encoder": (123_060_480, 6.649),
    "unet": (859_520_964, 401.6),
    "decoder": (49_490_199, 1257.3),
    "encoder": (34_163_664, 558.3),
}
COLUMNS = ("part", "block", "shape", "parameters", "conv", "dense", "attention", "GMAC", "taps")
UNREAD = ("text_model.embeddings.position_ids",)  # 0, 1, 2 …, in some files


def main(steps: int = 25, weights: str = "phantom", out: Path = Path("outputs")) -> None:
    """The model as a table and as a drawing.

    Args:
        steps: steps from noise to picture, 1 to 1000, for the work that a picture takes.
        weights: a model's name, or its folder or file.
        out: the folder to save into.
    """
    sd = script.load_model(weights)
    from xray.methods import anatomy

    calls = calls_of(sd, steps)
    folder = script.make_folder(out, "test_anatomy", Path(weights).name)
    with script.saving_into(folder):
        rows, layers = anatomy.blocks(sd)
        found, stored = sum_by_place(rows), stored_in(sd)
        title = finding(rows, calls, steps)
        figure = figures.anatomy_sheet(rows, shares(rows, calls), title)
        script.save_figure(figure, folder / "anatomy.png")
        (folder / "blocks.md").write_text(markdown(rows), encoding="utf-8")
        write_layers(layers, folder / "layers.csv")
    tell(rows, anatomy.totals(rows))
    script.conclude(
        title,
        f"in the walk {listed(found)}; in the file {listed(stored)}",
        picture=folder / "anatomy.png",
        table=folder / "blocks.md",
        tensors=folder / "layers.csv",
    )
    if found != stored:
        raise SystemExit("the control failed: the walk does not find the checkpoint's parameters")


# --- numbers -----------------------------------------------------------------------------------


def calls_of(sd: "StableDiffusion", steps: int) -> dict[str, int]:
    """Part → how often it computes for one picture."""
    from xray.probe.survey import ORDER, asked

    rounds = {"unet": len(sd.timesteps(steps)), "encoder": 0}
    return {part: rounds.get(part, 1) * asked(sd, part)[0].shape[0] for part in ORDER}


def shares(rows: Sequence["Block"], calls: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Parameters and work → part → its share of them; the work is that of one picture."""
    held, done = (dict.fromkeys(calls, 0.0) for _ in range(2))
    for row in rows:
        held[row.part] += row.parameters
        done[row.part] += row.gmacs * calls[row.part]
    told = {"parameters": held, "work": done}
    return {
        name: {part: value / sum(parts.values()) for part, value in parts.items()}
        for name, parts in told.items()
    }


def sum_by_place(rows: Sequence["Block"]) -> dict[str, int]:
    """Parameters by the folder that they lie in: encoder and decoder share one."""
    found = {"text_encoder": 0, "unet": 0, "vae": 0}
    for row in rows:
        found[row.part if row.part in found else "vae"] += row.parameters
    return found


def stored_in(sd: "StableDiffusion") -> dict[str, int]:
    """How many numbers the checkpoint's tensors have, by the folder that they lie in."""
    return {
        place: sum(
            prod(shape)
            for name, shape in sd.checkpoint.source(place).shapes().items()
            if not any(fnmatch(name, pattern) for pattern in UNREAD)
        )
        for place in ("text_encoder", "unet", "vae")
    }


# --- telling -----------------------------------------------------------------------------------


def listed(parameters: Mapping[str, int]) -> str:
    return ", ".join(f"{place} {n:,}" for place, n in parameters.items())


def cells(row: "Block") -> list[str]:
    """A row of the table; MACs in millions of multiply-accumulates each, the sum in GMAC."""
    millions = [f"{macs / 1e6:.1f}" for macs in row.macs.values()]
    shape = "×".join(map(str, row.shape))
    return [
        row.part, row.name, shape, f"{row.parameters:,}", *millions, f"{row.gmacs:.4f}",
        str(row.taps),
    ]  # fmt: skip


def markdown(rows: Sequence["Block"]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_layers(layers: Sequence["Layer"], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("address", "kind", "shape", "parameters", "macs"))
        table.writerows(
            [*layer[:2], "×".join(map(str, layer.shape)), *layer[3:]] for layer in layers
        )


def tell(rows: Sequence["Block"], totals: Mapping[str, tuple[int, float, int]]) -> None:
    line = "{:12} {:16} {:>11} {:>10} {:>8} {:>8} {:>9} {:>9} {:>5}"
    print(line.format(*COLUMNS) + "   (conv, dense, attention: millions of MACs)")
    for row in rows:
        print(line.format(*cells(row)))
    print(f"{'':12} {'parameters':>13} {'SD 1.x':>13} {'GMAC':>9} {'SD 1.x':>9} {'taps':>5}")
    for part, (parameters, gmacs, taps) in totals.items():
        known, work = SD1[part]
        print(f"{part:12} {parameters:13,} {known:13,} {gmacs:9.3f} {work:9.1f} {taps:5}")


def finding(rows: Sequence["Block"], calls: Mapping[str, int], steps: int) -> str:
    held, done = (part["unet"] for part in shares(rows, calls).values())
    parameters = sum(row.parameters for row in rows)
    work = sum(row.gmacs * calls[row.part] for row in rows)
    attention = sum(row.macs["attention"] / 1e9 * calls[row.part] for row in rows) / work
    most = max(rows, key=lambda row: row.parameters)
    share = most.parameters / parameters
    return (
        f"{parameters / 1e6:,.1f} M parameters, {held:.0%} of them in the UNet; the largest block, "
        f"{most.part}.{most.name}, has {share:.0%}; a picture in {steps} steps takes {work:,.1f} "
        f"GMAC, {done:.0%} in the UNet, {attention:.0%} in attention's two products"
    )


if __name__ == "__main__":
    script.run(main)
