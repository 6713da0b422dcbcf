"""The figures of word heat maps: every word has its map, every score its bar."""

import numpy as np

from xray.attention.sheets import heat_sheet
from xray.measure import between_extremes

RNG = np.random.default_rng(0)


def test_the_sheet_shows_each_word_over_the_picture():
    image = RNG.uniform(-1, 1, (12, 8, 3))
    heats = {f"word{i}": RNG.uniform(i, i + 3, (6, 4)) for i in range(8)}
    labels = {word: f"label of {word}" for word in heats}
    figure = heat_sheet(image, heats, 0.7, "a title", labels)
    by_title = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert [*by_title] == ["picture", *heats]
    for word, heat in heats.items():
        grey, shown = by_title[word].images
        np.testing.assert_allclose(shown.get_array(), between_extremes(heat))
        assert shown.get_clim() == (0, 1) and shown.get_extent() == [-0.5, 7.5, 11.5, -0.5]
        assert grey.get_array().shape == (12, 8)
        assert by_title[word].get_xlabel() == labels[word] and by_title[word].collections
    assert any("line at 0.7" in axes.get_ylabel() for axes in figure.axes)


def test_a_constant_map_has_no_line():
    figure = heat_sheet(np.zeros((8, 8, 3)), {"a": np.ones((4, 4))}, 0.7, "title", {"a": ""})
    assert not figure.axes[1].collections
