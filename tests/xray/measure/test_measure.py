"""The measures, against arithmetic, their definitions and TensorFlow's."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stable_diffusion_tf.errors import UsageError
from xray import measure

RNG = np.random.default_rng(0)
PICTURE = RNG.uniform(-1, 1, (2, 32, 40, 3))

NAN, INF = float("nan"), float("inf")
patient = settings(deadline=None, max_examples=50)  # a busy machine is no failure
grids = st.tuples(st.integers(1, 6), st.integers(1, 6))
masks = arrays(bool, (3, 4))
heats = arrays(np.float64, (3, 4), elements=st.integers(-3, 3).map(float))  # with ties


def test_it_is_numpy_only():
    code = "import xray.measure, sys; sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- pictures ------------------------------------------------------------------------------------


def test_psnr_of_a_known_error():
    np.testing.assert_allclose(measure.psnr(PICTURE, PICTURE + 0.2), 20.0)


def test_contrast_is_of_places_not_of_colours():
    images = np.zeros((2, 1, 4, 4, 3))
    images[0, ..., 0] = 1  # red all over
    images[1, ..., :2, :] = 1
    assert measure.contrast(images).ravel().tolist() == [0, 0.5]


def test_equal_pictures():
    assert np.isinf(measure.psnr(PICTURE, PICTURE)).all()
    np.testing.assert_allclose(measure.ssim(PICTURE, PICTURE), 1.0)


def test_each_picture_has_its_own_number():
    other = PICTURE.copy()
    other[1] += 0.1
    assert np.isinf(measure.psnr(PICTURE, other)[0]) and np.isfinite(
        measure.psnr(PICTURE, other)[1]
    )


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_ssim_is_tensorflows(noise):
    tf = pytest.importorskip("tensorflow")
    other = PICTURE + RNG.normal(0, noise, PICTURE.shape)
    theirs = tf.image.ssim(PICTURE / 2 + 0.5, other / 2 + 0.5, max_val=1.0).numpy()
    np.testing.assert_allclose(measure.ssim(PICTURE, other), theirs, atol=1e-4)


def test_ssim_wants_pictures_as_large_as_its_window():
    with pytest.raises(ValueError, match="11"):
        measure.ssim(PICTURE[:, :10], PICTURE[:, :10])


# --- maps and masks ------------------------------------------------------------------------------

LEFT = np.array([[True, False], [True, False]])
TOP = np.array([[True, True], [False, False]])
NONE = np.zeros((2, 2), bool)
SLOPE = np.array([[4.0, 2.0], [3.0, 0.0]])  # between its extremes: 1, 0.5, 0.75, 0


@pytest.mark.parametrize(
    "a, b, share",
    [(LEFT, LEFT, 1), (LEFT, TOP, 1 / 3), (LEFT, ~LEFT, 0), (NONE, NONE, 1), (LEFT, ~NONE, 1 / 2)],
)
def test_iou(a, b, share):
    assert measure.iou(a, b) == pytest.approx(share)
    assert measure.iou(b, a) == measure.iou(a, b)


@pytest.mark.parametrize(
    "heat, share, overlap",
    [
        (SLOPE, 0.7, 1),  # the left column
        (SLOPE, 0.75, 1),  # a cell at the threshold is in
        (SLOPE, 0.76, 1 / 2),  # its upper cell
        (SLOPE, 0.5, 2 / 3),  # and the upper right one
        (SLOPE, 0, 1 / 2),  # all
        (10 * SLOPE - 7, 0.7, 1),  # the scale and the origin of a map do not matter
        (np.ones((2, 2)), 1, 1 / 2),  # a constant map is everywhere
    ],
)
def test_iou_at_a_share_of_the_range(heat, share, overlap):
    assert measure.iou_at(heat, LEFT, share) == pytest.approx(overlap)


@pytest.mark.parametrize(
    "heat, mask, best, share",
    [
        (SLOPE, LEFT, 1, 0.75),
        (SLOPE, TOP, 2 / 3, 0.5),
        (SLOPE, ~LEFT, 1 / 2, 0),  # all is as good as it gets
        (-SLOPE, ~LEFT, 1, 0.5),
        (np.ones((2, 2)), LEFT, 1 / 2, 1),
        (SLOPE, NONE, 0, 1),
    ],
)
def test_best_iou(heat, mask, best, share):
    assert measure.best_iou(heat, mask) == pytest.approx((best, share))


@patient
@given(heats, masks, st.floats(0, 1))
def test_no_threshold_beats_the_best(heat, mask, share):
    best, where = measure.best_iou(heat, mask)
    assert measure.iou_at(heat, mask, where) == best
    if mask.any():
        assert measure.iou_at(heat, mask, share) <= best


@pytest.mark.parametrize(
    "heat, mask, hit",
    [
        (SLOPE, LEFT, 1),
        (SLOPE, ~LEFT, 0),
        ([[1.0, 1.0], [1.0, 0.0]], LEFT, 2 / 3),
        (np.zeros((2, 2)), NONE, 0),
    ],
)
def test_pointing(heat, mask, hit):
    assert measure.pointing(np.array(heat), mask) == pytest.approx(hit)


@pytest.mark.parametrize(
    "heat, mask, part",
    [
        (SLOPE, LEFT, 1.75 / 2.25),
        (SLOPE - 7, LEFT, 1.75 / 2.25),  # from its smallest value on
        (SLOPE, NONE, 0),
        (np.ones((2, 2)), LEFT, 1 / 2),
    ],
)
def test_mass_inside(heat, mask, part):
    assert measure.mass_inside(heat, mask) == pytest.approx(part)


@pytest.mark.parametrize(
    "heat, mask, other, part",
    [
        (SLOPE, LEFT, ~LEFT, 0.5 / 2.25),
        (SLOPE, ~LEFT, LEFT, 1.75 / 2.25),
        (SLOPE, LEFT, NONE, 0),
        (SLOPE, np.array([[True, False], [False, False]]), ~LEFT, 0.2),  # by area: 1 and 0.25
        (np.ones((2, 2)), LEFT, TOP, 1 / 2),
        (SLOPE, NONE, NONE, 1 / 2),
    ],
)
def test_leakage(heat, mask, other, part):
    assert measure.leakage(heat, mask, other) == pytest.approx(part)


@patient
@given(arrays(np.float64, 6, elements=st.integers(-3, 3).map(float)), heats)
def test_rank_correlation_is_scipys(values, heat):
    from scipy.stats import spearmanr

    other = heat.ravel()[:6]
    found = measure.rank_correlation(values, other)
    if len({*values}) == 1 or len({*other}) == 1:
        assert found == 0
    else:
        assert found == pytest.approx(spearmanr(values, other).statistic, abs=1e-12)


@pytest.mark.parametrize(
    "score",
    [
        lambda heat, mask: measure.iou_at(heat, mask, 0.4),
        measure.mass_inside,
        lambda heat, mask: measure.leakage(heat, mask, ~mask),
        lambda heat, mask: measure.best_iou(heat, mask)[0],
        lambda heat, mask: measure.best_iou(heat, mask)[1],
        measure.pointing,
        lambda heat, mask: measure.iou(heat > 0, mask),
    ],
)
def test_many_maps_are_scored_each_by_itself(score):
    heat, mask = RNG.integers(-3, 4, (2, 5, 3, 4)), RNG.random((5, 3, 4)) < 0.5
    one_by_one = [[score(heat[i, j], mask[j]) for j in range(5)] for i in range(2)]
    np.testing.assert_allclose(score(heat, mask), one_by_one)


def test_masks_that_do_not_fit_are_told():
    for score in (measure.iou, measure.best_iou, measure.pointing, measure.mass_inside):
        with pytest.raises(UsageError, match=r"a mask .*resize_by_area"):
            score(LEFT, TOP[:1])
        with pytest.raises(UsageError, match="bool, not uint8"):
            score(LEFT, TOP.astype(np.uint8))


@pytest.mark.parametrize(
    "maps, size, expected",
    [
        ([[0.0, 2, 4, 6]], (1, 2), [[1, 5]]),
        ([[0.0, 3, 6]], (1, 2), [[1, 5]]),  # the middle one goes half to each
        ([[1.0, 5]], (2, 4), [[1, 1, 5, 5]] * 2),
        ([[1.0, 3], [5, 7]], (1, 1), [[4]]),
    ],
)
def test_resize_by_area(maps, size, expected):
    np.testing.assert_allclose(measure.resize_by_area(np.array(maps), *size), expected)


@patient
@given(heats, grids)
def test_resizing_keeps_the_mean(heat, size):
    assert measure.resize_by_area(heat, *size).mean() == pytest.approx(heat.mean(), abs=1e-12)


@pytest.mark.parametrize(
    "image",
    [
        np.repeat(LEFT, 3, axis=1),
        np.where(LEFT, 200, 50).astype(np.uint8),
        np.where(LEFT, 0.6, 0.5),
        np.repeat(np.where(LEFT, 255, 0).astype(np.uint8)[..., None], 3, axis=2),
    ],
)
def test_a_mask_covers_the_cells_that_are_more_than_half_set(image):
    np.testing.assert_array_equal(measure.covered(image, 2, 2), LEFT)


@pytest.mark.parametrize(
    "image, told",
    [
        (np.full((2, 2), -1.0), "from 0 to 1, and this one from -1"),
        (np.full((2, 2), NAN), "nan"),
        (LEFT.astype(np.uint8), "from 0 to 255, and this one from 0 to 1: hand in a bool one"),
        (np.zeros((2, 2, 4)), r"\(2, 2, 4\)"),
        (np.zeros(2), r"\(2,\)"),
        (np.zeros((0, 2)), r"\(0, 2\)"),
    ],
)
def test_what_is_no_mask_is_told(image, told):
    with pytest.raises(UsageError, match=told):
        measure.covered(image, 2, 2)


# --- distributions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights, bits",
    [
        ([1, 0, 0], 0),
        ([1, 1], 1),
        ([3, 3, 3, 3], 2),  # they need not sum to one
        ([0.5, 0.25, 0.25, 0], 1.5),
        ([0, 0], NAN),
        ([[1, 1], [1, 0]], [1, 0]),
    ],
)
def test_entropy(weights, bits):
    np.testing.assert_allclose(measure.entropy(weights), bits)


def test_entropy_runs_along_its_axis():
    weights = RNG.random((2, 8, 3))
    expected = measure.entropy(np.moveaxis(weights, 1, -1))
    np.testing.assert_allclose(measure.entropy(weights, axis=1), expected)


def test_negative_weights_are_no_distribution():
    with pytest.raises(UsageError, match=r"-0\.5"):
        measure.entropy([1, -0.5])


@pytest.mark.parametrize(
    "x, mean, deviation, skewness, kurtosis, statistic",
    [
        ([-1, 1] * 12, 0, 1, 0, -2, 4),
        ([0, 0, 0, 1], 1 / 4, 3**0.5 / 4, 2 / 3**0.5, -2 / 3, 26 / 27),  # a coin's, p = 1/4
        ([7, 7], 7, 0, NAN, NAN, NAN),
        ([], NAN, NAN, NAN, NAN, NAN),
        ([1, NAN], NAN, NAN, NAN, NAN, NAN),
    ],
)
def test_normality(x, mean, deviation, skewness, kurtosis, statistic):
    expected = (mean, deviation, skewness, kurtosis, statistic, 5.991465)
    np.testing.assert_allclose(measure.normality(np.array(x)), expected, rtol=1e-6, atol=1e-12)


def test_normality_of_skewed_values_is_scipys():
    x = np.arange(1, 21) ** 1.5
    found = measure.normality(x)
    theirs = 0.34088693146093524, -1.1451291406627016, 1.480113624131922  # scipy 1.17.1
    np.testing.assert_allclose(found[2:5], theirs, rtol=1e-9)


def test_of_normal_arrays_one_in_twenty_is_rejected():
    draws = np.random.default_rng(0).normal(3, 2, (400, 2000))
    above = [found.jarque_bera > found.critical for found in map(measure.normality, draws)]
    assert 0.03 < np.mean(above) < 0.07


@pytest.mark.parametrize("draw", ["uniform", "laplace", "exponential"])
def test_what_is_not_normal_is_rejected(draw):
    found = measure.normality(getattr(np.random.default_rng(0), draw)(size=2000))
    assert found.jarque_bera > 10 * found.critical


def waves(h: int, w: int, down: int, right: int) -> np.ndarray:
    """A cosine of so many waves over the rows and the columns, (h, w)."""
    rows, columns = np.mgrid[:h, :w]
    return np.cos(2 * np.pi * (down * rows / h + right * columns / w))


@pytest.mark.parametrize(
    "x, frequency, mean_square",
    [
        (np.full((8, 8), 3.0), 0, 9),
        (waves(8, 8, 0, 2), 1 / 4, 1 / 2),
        (waves(8, 16, 2, 0), 1 / 4, 1 / 2),
        (waves(16, 16, 3, 4), 5 / 16, 1 / 2),
        (waves(8, 8, 4, 4), 6 / 8, 1),  # the checkerboard, √½ to the nearest eighth
    ],
)
def test_a_wave_has_its_power_at_its_frequency(x, frequency, mean_square):
    found = measure.spectrum(x)
    share = found.power * found.waves
    assert found.frequency[np.argmax(share)] == pytest.approx(frequency)
    assert share.max() == pytest.approx(mean_square)


@patient
@given(grids.flatmap(lambda hw: arrays(np.float64, (*hw, 2), elements=st.floats(-9, 9))))
def test_the_power_is_the_mean_square(maps):
    """Parseval."""
    found = measure.spectrum(maps)
    assert found.waves.sum() == maps[..., 0].size
    together = np.sum(found.power * found.waves[:, None], axis=0)
    np.testing.assert_allclose(together, np.mean(maps**2, axis=(0, 1)), atol=1e-9)


def test_white_noise_is_flat():
    found = measure.spectrum(np.random.default_rng(0).standard_normal((64, 64, 50)))
    np.testing.assert_allclose(found.power.mean(1) * 64 * 64, 1, atol=0.15)


def test_a_spectrum_is_of_maps():
    for shape in ((8,), (1, 8, 8, 4), (0, 8)):
        with pytest.raises(UsageError, match="maps"):
            measure.spectrum(np.zeros(shape))


# --- two arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ([1, 0], [0, 2], 0),
        ([1, 2], [2, 4], 1),
        ([3, 4], [-3, -4], -1),
        ([1, 1], [1, 0], 2**-0.5),
        ([0, 0], [1, 0], NAN),
        ([1e200, 0], [1e200, 0], NAN),  # too large to be squared, and it says so
        ([1e-150], [1e-150], 1),
    ],
)
def test_cosine(a, b, expected):
    np.testing.assert_allclose(measure.cosine(np.array(a), np.array(b)), expected, atol=1e-15)


def test_cosine_along_an_axis():
    a, b = [[1, 0], [1, 1]], [[1, 0], [1, -1]]
    np.testing.assert_allclose(measure.cosine(a, b, axis=-1), [1, 0])
    np.testing.assert_allclose(measure.cosine(a, b, axis=0), [1, -1])


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ([1, 2, 4], [1, 2, 4], 0),
        ([1, 2, 3], [1, 2, 4], 1 / 4),
        ([0, 0], [0, 0], 0),
        ([1e-9, 0], [0, 0], INF),
        ([NAN, 1], [NAN, 2], 1 / 2),
        ([NAN, 2], [1, 2], INF),
        ([1, 2], [NAN, 2], INF),
        ([INF, 3], [INF, 4], 1 / 4),
        ([-INF, 4], [INF, 4], INF),
        ([], [], 0),
    ],
)
def test_parting(a, b, expected):
    assert measure.parting(np.array(a, np.float32), np.array(b, np.float32)) == expected


@pytest.mark.parametrize("place", range(5))
def test_the_furthest_is_found_in_whatever_piece_it_is(place, monkeypatch):
    monkeypatch.setattr(measure.arrays, "PIECE", 2)
    b = np.array([[5.0, 1, 1, 1, 1]])
    assert measure.parting(b + 10 * (np.arange(5) == place), b) == 2


def test_arrays_of_two_shapes_do_not_part_they_differ():
    with pytest.raises(UsageError, match=r"\(2,\) and \(2, 1\)"):
        measure.parting(np.zeros(2), np.zeros((2, 1)))


# --- latents and pictures ------------------------------------------------------------------------


def test_the_map_of_sd_adds_up_its_rows():
    one_each = np.eye(4)
    np.testing.assert_allclose(measure.linear_rgb(one_each)[1], [0.187, 0.286, 0.173])
    np.testing.assert_allclose(measure.linear_rgb(one_each, bias=1)[1], [1.187, 1.286, 1.173])
    with pytest.raises(UsageError, match=r"takes 4 channels, and here are 5.*fit_latent_to_rgb"):
        measure.linear_rgb(np.eye(5))


def test_a_linear_map_is_found():
    latents = RNG.normal(size=(3, 4, 5, 4))
    matrix, bias = RNG.uniform(-0.1, 0.1, (4, 3)), np.array([0.1, -0.2, 0.3])
    images = (latents @ matrix + bias).repeat(8, axis=1).repeat(8, axis=2)
    found, offset, r2 = measure.fit_latent_to_rgb(latents, images)
    np.testing.assert_allclose(found, matrix, atol=1e-6)
    np.testing.assert_allclose(offset, bias, atol=1e-6)
    assert r2 == pytest.approx(1)


def test_what_latents_do_not_tell_is_not_explained():
    latents = RNG.normal(size=(4, 16, 16, 4))
    told, untold = RNG.normal(size=(2, 4, 16, 16, 1)) * 0.1
    latents[..., :1] = 10 * told
    images = np.clip(np.repeat(told + untold, 3, axis=-1), -1, 1)
    assert measure.fit_latent_to_rgb(latents, images)[2] == pytest.approx(0.5, abs=0.05)
    assert np.isnan(measure.fit_latent_to_rgb(latents, 0 * images)[2])


def test_bytes_are_pictures_too():
    latents = RNG.normal(size=(1, 4, 4, 4))
    black = np.zeros((1, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(measure.fit_latent_to_rgb(latents, black)[1], -1)


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (4, 4, 4)])
def test_each_latent_goes_with_a_picture(shape):
    with pytest.raises(UsageError, match="one each"):
        measure.fit_latent_to_rgb(np.zeros(shape), np.zeros((1, 8, 8, 3)))


def test_a_pixel_is_saturated_if_one_of_its_values_is_at_an_end():
    images = np.full((2, 2, 10, 10, 3), 128, np.uint8)
    images[0, 1, 0, :5, 2] = 255
    images[1, 0, :, :3] = 0
    images[1, 1] = 254
    np.testing.assert_allclose(measure.saturation(images), [[0, 0.05], [0.3, 0]])
