"""What the decoder makes of latents → matplotlib Figures. Nothing here shows or saves."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from xray.measure import mean_of
from xray.methods.linear_decoder import Linear
from xray.methods.receptive_field import HELD, Reach
from xray.plain_figure import PlainFigure
from xray.plots import AMOUNT, SIGNED, STYLES, as_shown, bars_with_intervals, head_line, picture


def decoder_sheet(
    shown: Mapping[str, np.ndarray], linear: Linear, reach: Reach, title: str
) -> Figure:
    """Pictures, what is done to the latent → (rows, H, W, 3) in [-1, 1]; below, the linear map and
    how far a position reaches."""
    rows = len(next(iter(shown.values())))
    figure = PlainFigure(figsize=(1.5 * len(shown), 1.5 * rows + 4.3), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.5 * rows, 4))
    for column, (name, images) in zip(
        upper.subplots(rows, len(shown), squeeze=False).T, shown.items(), strict=True
    ):
        column[0].set_title(name, fontsize=10)
        for axes, image in zip(column, images, strict=True):
            picture(axes, as_shown(image))
    panels = lower.subplots(1, 4, width_ratios=(1.1, 1.2, 1.5, 1.3))
    draw_matrix(panels[0], linear)
    draw_shares(panels[1], linear)
    draw_around(lower, panels[2], reach)
    draw_reach(panels[3], reach)
    head_line(figure, title)
    return figure


def draw_matrix(axes: Axes, linear: Linear) -> None:
    """Each channel's share of each colour, written into its square."""
    values = np.vstack([linear.matrix, linear.bias])
    most = np.abs(values).max()
    axes.imshow(values, cmap=SIGNED, vmin=-most, vmax=most, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 * most else "black"
        axes.text(column, row, f"{value:+.2f}", ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(3), ["red", "green", "blue"])
    axes.set_yticks(range(len(values)), [*map(str, range(len(linear.matrix))), "bias"])
    axes.set_ylabel("latent channel")
    axes.set_title("the matrix: latent → colour\n(−1 none, 1 full)", fontsize=10)


def draw_shares(axes: Axes, linear: Linear) -> None:
    shares = {
        "positions": linear.places,
        "pixels": linear.pixels,
        "positions,\nshuffled\npictures": linear.shuffled,
    }
    bars_with_intervals(axes, [*shares], [*shares.values()])
    axes.axvline(0, color="black", lw=0.8)
    axes.set_xlabel("R² of held-out pictures, %")
    axes.set_title("how much the matrix explains", fontsize=10)


def draw_around(figure: Figure, axes: Axes, reach: Reach) -> None:
    """The change around the position, which is the white square; the circle holds most of it."""
    rows, columns = reach.around.shape
    left, top = -columns / 2, -rows / 2
    shown = axes.imshow(
        100 * reach.around,
        cmap=AMOUNT,
        norm=LogNorm(),
        extent=(left, -left, -top, top),
        interpolation="nearest",
    )
    figure.colorbar(shown, ax=axes, format="%g", label="RMS change, % of full scale")
    half = reach.factor / 2
    axes.add_patch(Rectangle((-half, -half), 2 * half, 2 * half, fill=False, ec="white", lw=1.5))
    axes.add_patch(Circle((0, 0), reach.radii.mean(), fill=False, ec="white", lw=1.5, ls="--"))
    axes.set_title(
        f"one position is moved (square);\n{100 * HELD:.0f} % within the circle", fontsize=10
    )
    axes.set_xlabel("pixels from the position")


def draw_reach(axes: Axes, reach: Reach) -> None:
    colour, line, marker = STYLES[0]
    far = np.arange(len(reach.rms)) + 0.5
    axes.plot(far, 100 * reach.rms, color=colour, ls=line, marker=marker, ms=3)
    label = f"{100 * HELD:.0f} %: {mean_of(reach.radii)}"
    axes.axvline(reach.radii.mean(), color="black", ls="--", lw=1, label=label)
    axes.axvspan(0, reach.factor / 2, color="0.9", label="the position itself")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0, far[-1] + 0.5)
    axes.set_xlabel("pixels from its middle")
    axes.set_ylabel("RMS change, % of full scale")
    axes.set_title("how far a position reaches", fontsize=10)
    axes.legend(fontsize=9, frameon=False, loc="upper right")


# --- cells replaced by noise -------------------------------------------------------------------


class Sweep(NamedTuple):
    """Latents with a share of their positions replaced by noise of an amplitude, and decoded."""

    shares: tuple[float, ...]
    amplitudes: tuple[float, ...]  # in standard deviations of the latent
    pictures: np.ndarray  # (shares, amplitudes, H, W, 3) in [-1, 1]: the first one
    psnr: np.ndarray  # (shares, amplitudes, n) dB


def corruption_sheet(sweep: Sweep, loss: float, title: str) -> Figure:
    """Left the pictures, right their mean PSNR; rows are shares and columns amplitudes in both.

    loss: dB; a line parts what has lost less from what has lost more.
    """
    rows, columns = sweep.psnr.shape[:2]
    figure = PlainFigure(figsize=(1.35 * columns + 7, 1.35 * rows + 1.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.35 * columns + 0.5, 6.5))
    grid = left.subplots(rows, columns, squeeze=False)
    for place in np.ndindex(rows, columns):
        picture(grid[place], as_shown(sweep.pictures[place]))
    for axes, share in zip(grid[:, 0], sweep.shares, strict=True):
        axes.set_ylabel(f"{share:.0%}", fontsize=11)
    for axes, amplitude in zip(grid[-1], sweep.amplitudes, strict=True):
        axes.set_xlabel(f"{amplitude:g}", fontsize=11)
    left.supylabel("share of latent positions that is replaced", fontsize=10)
    comma = ",\n" if columns < 4 else ", "
    left.supxlabel(f"amplitude of the noise{comma}in standard deviations", fontsize=10)
    draw_surface(right, sweep, loss)
    head_line(figure, title)
    return figure


def draw_surface(figure: Figure, sweep: Sweep, loss: float) -> None:
    axes = figure.subplots()
    mean = sweep.psnr.mean(axis=2)
    shown = axes.imshow(mean, cmap=AMOUNT, aspect="auto")
    middle = (mean.min() + mean.max()) / 2
    for (row, column), value in np.ndenumerate(mean):
        colour = "white" if value < middle else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=11, color=colour)
    for row, column in np.argwhere(mean[0] - mean < loss):
        if row + 1 == len(mean) or mean[0, column] - mean[row + 1, column] >= loss:
            axes.plot([column - 0.5, column + 0.5], [row + 0.5] * 2, color="#D55E00", lw=4)
    axes.set_xticks(range(len(sweep.amplitudes)), [f"{a:g}" for a in sweep.amplitudes], fontsize=11)
    axes.set_yticks(range(len(sweep.shares)), [f"{s:.0%}" for s in sweep.shares], fontsize=11)
    axes.set_xlabel("amplitude of the noise, in standard deviations", fontsize=10)
    axes.set_title(
        f"PSNR, dB: mean of {sweep.psnr.shape[2]} latents\n"
        f"below the orange line more than {loss:.0f} dB are lost: the squared error has doubled",
        fontsize=10,
    )
    figure.colorbar(shown, ax=axes, label="PSNR, dB")
