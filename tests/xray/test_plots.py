"""Figures: every picture and label is there, and no window system is touched."""

import subprocess
import sys

import numpy as np
import pytest

from experiments.figures import image_encoder
from xray import plots
from xray.measure import Estimate
from xray.plain_figure import PlainFigure

RNG = np.random.default_rng(0)


def test_a_strip_shows_each_picture_under_its_label():
    images = RNG.uniform(-1, 1, (3, 8, 8, 3))
    figure = plots.film_strip(images, ["a", "b", "c"], "title")
    assert [axes.get_xlabel() for axes in figure.axes] == ["a", "b", "c"]
    for axes, image in zip(figure.axes, images, strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), image / 2 + 0.5, atol=1e-6)


def test_a_strip_wants_a_label_for_each():
    with pytest.raises(ValueError, match="zip"):
        plots.film_strip(np.zeros((2, 8, 8, 3)), ["only one"], "")


def test_the_encoder_sheet_shows_all_channels_on_one_scale():
    image, mean = RNG.uniform(-1, 1, (16, 16, 3)), RNG.normal(size=(4, 4, 4))
    arrays = {"image": image, "round_trip": image, "mean": mean, "std": np.abs(mean)}
    figure = image_encoder.encoder_sheet(arrays, "title")
    titled = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    for i in range(4):
        shown = titled[f"posterior mean, channel {i}"].images[0]
        np.testing.assert_array_equal(shown.get_array(), mean[..., i])
        assert shown.get_clim() == (-np.abs(mean).max(), np.abs(mean).max())
        assert titled[f"posterior std, channel {i}"].images[0].get_clim()[0] == 0
    assert titled["error, % of full scale"].images[0].get_array().max() == 0


def test_plots_need_no_window_system():
    code = "import xray.plots, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_intervals_are_drawn_as_far_as_they_reach():
    sure, alone = Estimate(2.0, 1.0, 4.0, 8, "%"), Estimate(3.0, np.nan, np.nan, 1, "%")
    assert plots.whiskers([sure, alone]).tolist() == [[1, 0], [2, 0]]
    axes = PlainFigure().add_subplot()
    plots.bars_with_intervals(axes, ["a", "b"], [sure, alone])
    assert [bar.get_width() for bar in axes.patches] == [2, 3]
    assert [text.get_text().strip() for text in axes.texts] == ["2.0 %", "3 %"]
    plots.curve_with_intervals(axes, [0, 1], [sure, alone], "a curve", style=1)
    assert axes.get_legend_handles_labels()[1] == ["a curve"]


def test_a_title_is_broken_where_the_figure_ends():
    figure = PlainFigure(figsize=(4, 4))
    plots.head_line(figure, "“a cat”\n" + "word " * 12)
    lines = figure.get_suptitle().splitlines()
    assert lines[0] == "“a cat”" and len(lines) == 3 and max(map(len, lines)) <= 40
