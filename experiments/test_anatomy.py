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
GMAC. The phantom has the same anatomy with two levels, blocks and channels less; as it keeps the
vocabulary of 49,408 tokens, though it knows 122, two thirds of its parameters are a table that is
only looked up in. The control: the walk finds exactly as many parameters as the checkpoint's
tensors have numbers, part by part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import stable_diffusion_tf
from experiments.figures import anatomy as figures
from xray import options, script
from xray.options import check_range
from xray.report import Control, Report

if TYPE_CHECKING:
    from xray.methods.anatomy import Block

SD1 = {  # part → parameters, GMACs for 512 × 512 pixels; tests/experiments counts them again
    "text_encoder": (123_060_480, 6.649),
    "unet": (859_520_964, 401.6),
    "decoder": (49_490_199, 1257.3),
    "encoder": (34_163_664, 558.3),
}


@dataclass(frozen=True)
class Options(options.Options):
    steps: int = 25
    """from noise to picture, 1 to 1000, for the work that a picture takes."""

    def check(self) -> None:
        super().check()
        check_range("steps", self.steps, 1, 1000, 25)


def main(sd: "stable_diffusion_tf.StableDiffusion", options: Options) -> Report:
    from xray.methods import anatomy  # it starts Keras, and --help need not wait for that

    calls = anatomy.calls_of(sd, options.steps)
    rows, layers = anatomy.blocks(sd)
    found, stored = anatomy.sum_by_place(rows), anatomy.stored_in(sd)
    shares, totals = anatomy.shares(rows, calls), anatomy.totals(rows)
    parameters = sum(row.parameters for row in rows)
    most = max(rows, key=lambda row: row.parameters)
    finding = (
        f"{shares['parameters']['unet']:.0%} of {parameters / 1e6:,.1f} M parameters are in the "
        f"UNet, which does {shares['work']['unet']:.0%} of the work; {most.part}.{most.name} holds "
        f"{most.parameters / parameters:.0%}."
    )
    work = {f"{part}, GMAC": gmacs for part, (_, gmacs, _) in totals.items()}
    return Report(
        finding,
        Control(
            "parameters in the walk, and in the file",
            listed(found) + ("; the same" if found == stored else f"; {listed(stored)}"),
            found == stored,
            "the walk does not find the checkpoint's parameters",
        ),
        numbers={f"{part}, parameters": f"{total[0]:,}" for part, total in totals.items()} | work,
        table=[
            {"part": part, "parameters": parameters, "SD 1.x": SD1[part][0]}
            | {"GMAC": gmacs, "SD 1.x, GMAC": SD1[part][1], "taps": taps}
            for part, (parameters, gmacs, taps) in totals.items()
        ],
        figure=figures.anatomy_sheet(rows, shares, finding),
        tables={
            "blocks": [block_row(row) for row in rows],
            "layers": [layer._asdict() for layer in layers],
        },
    )


def block_row(row: "Block") -> dict[str, object]:
    """A block as a row of a table; multiply-accumulates in millions by kind, and their sum."""
    shape = "×".join(map(str, row.shape))
    told = {"part": row.part, "block": row.name, "shape": shape, "parameters": row.parameters}
    return told | {f"{kind}, M": macs / 1e6 for kind, macs in row.macs.items()} | {"taps": row.taps}


def listed(parameters: Mapping[str, int]) -> str:
    return ", ".join(f"{place} {n:,}" for place, n in parameters.items())


if __name__ == "__main__":
    script.run_experiment(main, Options)
