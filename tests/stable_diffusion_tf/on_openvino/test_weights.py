"""Kernels in int8."""

import numpy as np

from stable_diffusion_tf.on_openvino.weights import narrowed


def test_a_number_is_off_by_half_a_step_of_its_output_at_most():
    kernel = np.random.default_rng(0).standard_normal((6, 4, 3, 3)).astype(np.float32)
    kernel[2] *= 1e4  # an output's own scale: the others lose nothing by it
    numbers, scales = narrowed(kernel)
    assert numbers.dtype == np.int8 and numbers.shape == kernel.shape and scales.shape == (6,)
    off = np.abs(numbers * scales[:, None, None, None] - kernel)
    assert (off <= 0.501 * scales[:, None, None, None]).all()
    assert (np.abs(numbers).reshape(6, -1).max(axis=1) == 127).all()


def test_an_output_of_zeros_stays_zero():
    numbers, scales = narrowed(np.zeros((2, 3), np.float16))
    assert not numbers.any() and np.isfinite(scales).all()
