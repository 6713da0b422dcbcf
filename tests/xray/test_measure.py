"""PSNR and SSIM, against their definitions and TensorFlow's."""

import numpy as np
import pytest

from xray import measure

RNG = np.random.default_rng(0)
PICTURE = RNG.uniform(-1, 1, (2, 32, 40, 3))


def test_psnr_of_a_known_error():
    np.testing.assert_allclose(measure.psnr(PICTURE, PICTURE + 0.2), 20.0)


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
