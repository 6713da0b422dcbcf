"""Measures of pictures, (b, H, W, c) floats in [-1, 1], channels last."""

import numpy as np

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # a Gaussian window of 11 × 11
SSIM_K1, SSIM_K2 = 0.01, 0.03


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of pictures (b, H, W, c) in [-1, 1] → (b,); equal ones
    give inf."""
    error = np.mean((np.asarray(a, np.float64) - b) ** 2, axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(2.0**2 / error)  # 2: from black to white


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of pictures (b, H, W, c) in [-1, 1] → (b,), the mean over pixels and
    channels.

    Wang et al., IEEE TIP 13 (2004), eq. 13, with their Gaussian window and constants, on
    intensities from 0 (black) to 1; only windows that lie wholly inside count, so both sides must
    be at least 11 pixels.
    """
    a, b = (np.asarray(y, np.float64) / 2 + 0.5 for y in (a, b))
    if a.shape != b.shape or min(a.shape[1:3]) <= 2 * SSIM_RADIUS:
        raise ValueError(
            f"SSIM wants two sets of one shape, sides of 11 or more: {a.shape}, {b.shape}"
        )
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast = (2 * covariance + c2) / (var_a + var_b + c2)
    return np.mean(luminance * contrast, axis=(1, 2, 3))


def detail(images: np.ndarray) -> np.ndarray:
    """The mean difference of neighbouring pixels of pictures (…, H, W, 3) in [-1, 1], per cent of
    full scale, (…): small where they are blurred, large where they are noisy."""
    steps = (np.abs(np.diff(images, axis=axis)) for axis in (-2, -3))
    return 25 * sum(step.mean(axis=(-3, -2, -1), dtype=np.float64) for step in steps)


def blur(x: np.ndarray) -> np.ndarray:
    """The Gaussian window of SSIM over (b, H, W, c) → (b, H − 10, W − 10, c)."""
    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    window /= window.sum()
    for axis in (1, 2):
        views = np.lib.stride_tricks.sliding_window_view(x, len(window), axis)
        x = views @ window
    return x


def contrast(images: np.ndarray) -> np.ndarray:
    """The standard deviation over the places of a picture, the root mean square of its channels':
    (…, H, W, c) → (…)."""
    return np.sqrt(np.asarray(images, np.float64).var((-3, -2)).mean(-1))
