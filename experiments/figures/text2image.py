"""How a picture comes about → matplotlib Figure. Nothing here shows or saves."""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from xray.film import Film
from xray.plain_figure import PlainFigure
from xray.plots import as_shown, head_line, picture

SHOWN = 8  # steps


def two_rows(film: Film, paint: Callable[[np.ndarray], np.ndarray], finding: str) -> Figure:
    """The noisy x_t and the predicted clean image x̂0 at evenly spread steps; last, the picture.
    `paint`: latents (b, h, w, 4) → images (b, H, W, 3)."""
    steps = np.linspace(0, len(film) - 1, min(SHOWN, len(film))).round().astype(int)
    frames = [film[i] for i in np.unique(steps).tolist()]
    names = [f"step {frame.index + 1}\nt = {frame.t}" for frame in frames] + ["the picture"]
    rows = {  # decoded one by one: large pictures fit
        "x_t": [paint(frame["x"])[0] for frame in frames],
        "x̂0": [paint(frame["x0"])[0] for frame in frames],
    }
    last = film.image / 127.5 - 1
    figure = PlainFigure(figsize=(1.5 * len(names) + 0.4, 4.1), layout="constrained")
    grid = figure.subplots(2, len(names), squeeze=False)
    for line, (name, some) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(line, [*some, last], strict=True):
            picture(axes, as_shown(image))
        line[0].set_ylabel(name, fontsize=12)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=9)
    prompt, seed = film.facts["prompt"], film.facts["seed"]
    head_line(figure, f"“{prompt}”, seed {seed}\n{finding}", 11)
    return figure
