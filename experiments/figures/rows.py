"""Rows of pictures with bars beside them → matplotlib Figure. Nothing here shows or saves."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray.measure import Estimate
from xray.plain_figure import PlainFigure
from xray.plots import picture, whiskers

SIDE = 1.3  # inches, of a picture
PANEL = 2.3  # inches, the width of a panel of bars
LABELS = 1.8  # inches, for the names of the rows


def sheet_of_rows(
    images: np.ndarray, names: Sequence[str], panels: int, heading: str, title: str
) -> tuple[Figure, list[list[Axes]], list[Axes]]:
    """Pictures in rows, and empty panels as high as all of them: the figure, the axes of each
    picture, and those of the panels, for `lay_out`.

    images: (rows, n, H, W, 3), as imshow takes them. heading: above the names of the rows.
    """
    rows, columns = images.shape[:2]
    width = LABELS + 0.2 + SIDE * columns + PANEL * panels
    height = 1.9 + SIDE * rows
    figure = PlainFigure(figsize=(width, height))
    grid = figure.add_gridspec(
        rows,
        columns + panels,
        width_ratios=[SIDE] * columns + [PANEL] * panels,
        left=LABELS / width,
        right=1 - 0.2 / width,
        bottom=0.6 / height,
        top=1 - 1.3 / height,
        wspace=0.08,
        hspace=0.06,
    )
    cells = [[figure.add_subplot(grid[i, j]) for j in range(columns)] for i in range(rows)]
    for row, some, name in zip(cells, images, names, strict=True):
        for axes, image in zip(row, some, strict=True):
            picture(axes, image)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
    above = {"fontsize": 11, "ha": "right", "va": "bottom", "weight": "bold"}
    figure.text((LABELS - 0.05) / width, 1 - 1.25 / height, heading, **above)
    lines = [textwrap.fill(line, int(9 * width)) for line in title.split("\n")]
    figure.suptitle("\n".join(lines), fontsize=12)
    return figure, cells, [figure.add_subplot(grid[:, columns + i]) for i in range(panels)]


def lay_out(axes: Axes, rows: int, unit: str, title: str) -> None:
    """Bars beside their rows of pictures."""
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlim(0, None)
    axes.set_xlabel(unit, fontsize=9)
    axes.set_title(title, fontsize=10)


def draw_estimates(axes: Axes, estimates: Sequence[Estimate]) -> None:
    """A bar for each row, with its interval and its value above."""
    values = np.array([one.value for one in estimates])
    places = np.arange(len(values))
    reach = whiskers(estimates)
    axes.barh(places, values, 0.4, xerr=reach, color="0.55", ecolor="0.15", capsize=3)
    for place, one in zip(places, estimates, strict=True):
        axes.text(0, place - 0.25, f" {one.short}", fontsize=9, va="bottom")


def write_cells(
    axes: Axes, table: Sequence[Mapping[str, str | Estimate]], columns: Sequence[str]
) -> None:
    """Counts beside their rows of pictures, a column for each of these; dark where all are so."""
    shares = np.array([[row[name].value for name in columns] for row in table])
    axes.imshow(shares, "Greens", vmin=0, vmax=1.3, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        said = table[row][columns[column]].short.replace(" of ", "/")
        axes.text(column, row, said, ha="center", va="center", fontsize=9, alpha=0.4 + 0.6 * share)
    axes.set_xticks(range(len(columns)), [wrapped(name) for name in columns], fontsize=8)
    axes.set_xlabel("pictures that show it", fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])


def wrapped(name: str) -> str:
    return name.replace(" ", "\n").replace("background", "back-\nground")
