"""Pictures walked to noise and back again → matplotlib Figure. Nothing here shows or saves."""

import textwrap
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import standard_error
from xray.measure.telling import with_error
from xray.methods.ddim_inversion import neighbour_correlation
from xray.plain_figure import PlainFigure
from xray.plots import STYLES, as_shown, picture

ROWS = 2  # pictures that are shown
REACH = 4.0  # deviations of true noise to either side that are drawn


class Walks(NamedTuple):
    """Pictures walked to noise and back again, in some steps and with some guidance; noise and
    pictures are those of the most steps. Pictures are (…, n, H, W, 3) in [-1, 1]."""

    steps: tuple[int, ...]
    guidance: tuple[float, ...]
    images: np.ndarray
    plain: np.ndarray  # encoded and decoded, and nothing else
    pictures: np.ndarray  # (guidance, n, H, W, 3) what came back
    other: np.ndarray  # drawn from fresh noise, with the first guidance
    noise: np.ndarray  # (guidance, n, h, w, c) what was found
    fresh: np.ndarray  # (n, h, w, c)
    psnr: np.ndarray  # (guidance, steps, n) dB, of what came back
    ceiling: np.ndarray  # (n,) of `plain`
    chance: np.ndarray  # (n,) of `other`
    same: bool  # whether one walk, taken twice, ended in the same noise


def inversion_sheet(walks: Walks, title: str) -> Figure:
    """Pictures, their noise and what came back; PSNR over the steps, and how normal noise is."""
    shown = columns_of(walks)
    rows = min(ROWS, len(walks.images))
    figure = PlainFigure(figsize=(1.75 * len(shown), 1.75 * rows + 5), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.75 * rows + 0.4, 4))
    for column, (name, images) in zip(
        upper.subplots(rows, len(shown), squeeze=False).T, shown.items(), strict=True
    ):
        column[0].set_title(name, fontsize=10)
        for axes, image in zip(column, images, strict=False):
            picture(axes, as_shown(image))
    panels = lower.subplots(1, 3, width_ratios=(1.3, 1.2, 1))
    draw_curves(panels[0], walks)
    draw_densities(panels[1], walks)
    draw_neighbours(panels[2], walks)
    figure.suptitle("\n".join(textwrap.wrap(title, 105)), fontsize=12)
    return figure


def columns_of(walks: Walks) -> dict[str, np.ndarray]:
    """Title → pictures (n, …, 3) in [-1, 1]; of the guidance, the first and the last."""
    shown = {"the picture": walks.images, "encoded, decoded": walks.plain}
    for i in (0, -1):
        scale = f"{walks.guidance[i]:g}"
        shown[f"noise found,\nguidance {scale}"] = walks.noise[i, ..., :3] / REACH
        shown[f"drawn from it,\nguidance {scale}"] = walks.pictures[i]
    return shown | {"control: drawn\nfrom fresh noise": walks.other}


def draw_curves(axes: Axes, walks: Walks) -> None:
    """The mean PSNR over the steps, a curve for each guidance; bars are standard errors."""
    for scale, psnr, (colour, line, marker) in zip(
        walks.guidance, walks.psnr, STYLES, strict=False
    ):
        axes.errorbar(
            walks.steps,
            psnr.mean(1),
            standard_error(psnr, axis=1),
            color=colour,
            ls=line,
            marker=marker,
            ms=5,
            capsize=3,
            label=f"guidance {scale:g}",
        )
    for values, name in ((walks.ceiling, "encoded, decoded"), (walks.chance, "from fresh noise")):
        axes.axhline(values.mean(), color="0.35", lw=1, ls=(0, (4, 2)))
        axes.annotate(
            name, (0, values.mean()), (4, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=9,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(walks.steps, [str(count) for count in walks.steps])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.2 * (high - low), high + 0.05 * (high - low))  # room for the legend
    axes.set_xlabel("steps there, and as many back")
    axes.set_ylabel("PSNR of what came back, dB")
    axes.set_title("how much comes back: mean over the pictures", fontsize=10)
    axes.legend(fontsize=9, frameon=False, loc="lower center", ncols=3)


def draw_densities(axes: Axes, walks: Walks) -> None:
    """The values of the noise that was found, for the first guidance and the last."""
    edges = np.linspace(-REACH, REACH, 61)
    normal = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    axes.fill_between(edges, normal, color="0.85", label="normal")
    for i, (colour, line, _) in zip((0, -1), STYLES, strict=False):
        density, _ = np.histogram(walks.noise[i], edges)
        density = density / (walks.noise[i].size * (edges[1] - edges[0]))
        label = f"guidance {walks.guidance[i]:g}: deviation {walks.noise[i].std():.2f}"
        axes.plot((edges[1:] + edges[:-1]) / 2, density, line, color=colour, label=label)
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
    axes.set_xlabel("value of the noise that was found")
    axes.set_ylabel("density")
    axes.set_title("is it normal?", fontsize=10)
    axes.legend(fontsize=9, frameon=False, loc="upper left")


def draw_neighbours(axes: Axes, walks: Walks) -> None:
    """How alike neighbouring cells are, with standard errors; last, in true noise."""
    found = [neighbour_correlation(noise) for noise in (*walks.noise, walks.fresh)]
    names = [*(f"{scale:g}" for scale in walks.guidance), "true\nnoise"]
    colour, _, marker = STYLES[0]
    at, means = range(len(found)), [values.mean() for values in found]
    errors = [float(standard_error(values)) for values in found]
    axes.errorbar(at, means, errors, color=colour, ls="", marker=marker, ms=6, capsize=4)
    axes.axhline(0, color="0.35", lw=1, ls=(0, (4, 2)))
    for x, values in zip(at, found, strict=True):
        axes.annotate(
            with_error(values, 2), (x, values.mean()), (0, 12), textcoords="offset points",
            ha="center", fontsize=8,
        )  # fmt: skip
    axes.set_xlim(-0.6, len(found) - 0.4)
    axes.margins(y=0.2)
    axes.set_xticks(at, names)
    axes.set_xlabel("guidance")
    axes.set_ylabel("correlation of neighbouring cells")
    axes.set_title("is it white?", fontsize=10)
