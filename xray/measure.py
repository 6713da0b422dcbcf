"""Pure numbers about arrays. They are NumPy; pictures are channels last, maps are (…, h, w)."""

from typing import NamedTuple

import numpy as np

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_model

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # a Gaussian window of 11 × 11
SSIM_K1, SSIM_K2 = 0.01, 0.03
LATENT_TO_RGB = np.array(  # SD 1.x, scaled latents: keturn, Hugging Face forum, topic 23204
    [
        [0.298, 0.207, 0.208],
        [0.187, 0.286, 0.173],
        [-0.158, 0.189, 0.264],
        [-0.184, -0.271, -0.473],
    ]
)


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


# --- maps and masks: over the last two axes, rows and columns ------------------------------------


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boolean masks (…, h, w) → (…); two empty masks agree: 1."""
    check_mask(a, np.shape(b))
    check_mask(b, np.shape(a))
    both, either = (np.sum(cells, axis=(-2, -1)) for cells in (a & b, a | b))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def iou_at(heat: np.ndarray, mask: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """IoU of a mask with the cells of a map that reach a share of its range, (…, h, w) → (…).

    share: 0 is the map's smallest value, 1 its largest; one number, or one for each map, (…).
    """
    return iou(between_extremes(heat) >= np.asarray(share)[..., None, None], mask)


def best_iou(heat: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best IoU over every threshold that parts the map's cells, and the share of the range
    where `iou_at` gives it: (…, h, w) → (…), (…). Of equally good ones, the highest threshold."""
    check_mask(mask, np.shape(heat))
    heat, mask = np.broadcast_arrays(between_extremes(heat), mask)
    level = heat.reshape(*heat.shape[:-2], -1)
    inside = mask.reshape(level.shape)
    order = np.argsort(-level, axis=-1)  # threshold k takes the k + 1 largest cells
    level, inside = (np.take_along_axis(x, order, -1) for x in (level, inside))
    hits = np.cumsum(inside, axis=-1)
    taken = np.arange(1, level.shape[-1] + 1)
    score = hits / (taken + hits[..., -1:] - hits)
    splits_a_tie = level[..., :-1] == level[..., 1:]
    score[..., :-1][splits_a_tie] = -1
    best = np.argmax(score, axis=-1, keepdims=True)
    return tuple(np.take_along_axis(x, best, -1)[..., 0] for x in (score, level))


def pointing(heat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Whether a map's largest cell lies in the mask, 0 or 1: (…, h, w) → (…). Where several cells
    tie for the largest: the share of them that do. The pointing game of arXiv 1608.00507."""
    check_mask(mask, np.shape(heat))
    top = heat == np.max(heat, axis=(-2, -1), keepdims=True)
    return np.sum(top & mask, axis=(-2, -1)) / np.sum(top, axis=(-2, -1))


def between_extremes(heat: np.ndarray) -> np.ndarray:
    """Each map (…, h, w) stretched from 0, its smallest value, to 1; a constant one is all 1."""
    heat = np.asarray(heat, np.float64)
    low, high = (pick(heat, axis=(-2, -1), keepdims=True) for pick in (np.min, np.max))
    return np.where(high == low, 1.0, (heat - low) / np.where(high == low, 1.0, high - low))


def check_mask(mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises UsageError where it is no mask for a map of this shape."""
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise UsageError(f"a mask is bool, not {mask.dtype}: hand in (mask > threshold)")
    if mask.shape[-2:] != shape[-2:]:
        raise UsageError(
            f"a map {shape} and a mask {mask.shape}: bring them to one grid with resize_by_area"
        )


def resize_by_area(maps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(…, h, w) → (…, rows, columns) float64: each new cell is the mean of what it covers."""
    maps = np.asarray(maps, np.float64)
    return overlaps(rows, maps.shape[-2]) @ maps @ overlaps(columns, maps.shape[-1]).T


def overlaps(cells: int, pixels: int) -> np.ndarray:
    """(cells, pixels): the share of each cell that lies on each pixel, both lines equally long."""
    cell, pixel = np.arange(cells)[:, None] * pixels, np.arange(pixels) * cells
    common = np.minimum(cell + pixels, pixel + cells) - np.maximum(cell, pixel)
    return np.maximum(common, 0) / pixels


def covered(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Where an image is set, on a grid: (rows, columns) bool, the cells that are more than half so.

    image: (H, W), or (H, W, 3) whose mean is taken; bool, floats from 0 to 1, or uint8 to 255.
    """
    image = np.asarray(image)
    if image.shape[2:] not in ((), (3,)) or image.ndim < 2 or not image.size:
        raise UsageError(f"a mask is (H, W) or (H, W, 3), not {image.shape}")
    full = 255 if image.dtype == np.uint8 else 1
    least, most = float(image.min()), float(image.max())
    if not 0 <= least <= most <= full or most == 1 < full:
        raise UsageError(
            f"a mask of {image.dtype} is from 0 to {full}, and this one from {least:.3g} to "
            f"{most:.3g}: hand in a bool one, (mask > threshold)"
        )
    level = image.reshape(*image.shape[:2], -1).mean(-1) / full
    return resize_by_area(level, rows, columns) > 0.5


# --- distributions -------------------------------------------------------------------------------


def entropy(weights: np.ndarray, axis: int = -1) -> np.ndarray:
    """Entropy in bits of the distributions along an axis, (…, n, …) → (…).

    Shannon, Bell System Technical Journal 27 (1948), section 6. The weights need not sum to 1; none
    may be negative. All zero is no distribution: NaN.
    """
    weights = np.asarray(weights, np.float64)
    if np.any(weights < 0):
        raise UsageError(f"a distribution has no negative weights; here is {weights.min():.3g}")
    with np.errstate(invalid="ignore"):
        p = weights / weights.sum(axis, keepdims=True)
    return np.sum(p * np.log2(1 / np.where(p == 0, 1.0, p)), axis)


class Normality(NamedTuple):
    """Moments of an array, and a statistic that stays below `critical` in 95 of 100 normal ones."""

    mean: float
    deviation: float
    skewness: float  # normal: 0
    excess_kurtosis: float  # normal: 0; heavy tails: above
    jarque_bera: float
    critical: float


def normality(x: np.ndarray) -> Normality:
    """How far the values of an array are from a normal distribution of any mean and deviation.

    Jarque & Bera, Economics Letters 6 (1980), p. 257: n/6·(skewness² + kurtosis²/4), of χ² with two
    degrees of freedom if the values are normal and independent, so the critical value at 5 % is
    −2·ln 0.05. It holds for large n: from about two thousand values on. The moments divide by n.
    An array without two different values gives NaN.
    """
    x = np.asarray(x, np.float64).ravel()
    critical = -2 * float(np.log(0.05))
    if x.size == 0 or np.all(x == x[0]):
        mean, deviation = (float(x[0]), 0.0) if x.size else (np.nan, np.nan)
        return Normality(mean, deviation, np.nan, np.nan, np.nan, critical)
    with np.errstate(all="ignore"):  # what NaN and infinity lead to is told by the result
        mean, deviation = float(x.mean()), float(x.std())
        z = (x - mean) / deviation
        skewness, kurtosis = float(np.mean(z**3)), float(np.mean(z**4)) - 3
    statistic = x.size / 6 * (skewness**2 + kurtosis**2 / 4)
    return Normality(mean, deviation, skewness, kurtosis, statistic, critical)


class Spectrum(NamedTuple):
    """Power by spatial frequency: Σ power·waves is the mean square of a map."""

    frequency: np.ndarray  # (n,) cycles per cell, from 0, the mean, to √½, the checkerboard
    power: np.ndarray  # (n,) or (n, c): the mean over the waves of a frequency; flat in white noise
    waves: np.ndarray  # (n,) how many they are


def spectrum(maps: np.ndarray) -> Spectrum:
    """The radial power spectrum of a map (h, w) or of several (h, w, c), each by itself.

    Waves whose distance from the origin of the Fourier plane rounds to the same step are one
    frequency; a step is one wave over the longer side.
    """
    maps = np.asarray(maps, np.float64)
    if maps.ndim not in (2, 3) or maps.size == 0:
        raise UsageError(f"a spectrum is of maps (h, w) or (h, w, c), not {maps.shape}")
    h, w = maps.shape[:2]
    power = np.abs(np.fft.fft2(maps, axes=(0, 1)) / (h * w)) ** 2
    radius = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
    step = max(h, w)
    rings, ring, waves = np.unique(np.rint(radius * step), return_inverse=True, return_counts=True)
    total = np.zeros((len(rings), *maps.shape[2:]))
    np.add.at(total, ring.ravel(), power.reshape(h * w, *maps.shape[2:]))
    return Spectrum(rings / step, (total.T / waves).T, waves)


def standard_error(x: np.ndarray, axis: int = 0) -> np.ndarray:
    """Of the mean of independent values along an axis; of one value, it is not known: NaN."""
    x = np.asarray(x, np.float64)
    n = x.shape[axis]
    return x.std(axis, ddof=1) / n**0.5 if n > 1 else np.full_like(x.mean(axis), np.nan)


def exceeds(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the mean of some values is above that of others, (n,) and (m,), by more than two
    standard errors of the difference; never where one is alone."""
    error = np.hypot(standard_error(x), standard_error(y))
    return bool(np.mean(x) - np.mean(y) > 2 * error)


# --- two arrays ----------------------------------------------------------------------------------


def cosine(a: np.ndarray, b: np.ndarray, axis: int | None = None) -> float | np.ndarray:
    """Cosine of the angle between two arrays as vectors, or between the vectors along an axis,
    (…, n, …) → (…). A vector of zeros has no angle: NaN."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.sqrt(np.sum(a * a, axis)) * np.sqrt(np.sum(b * b, axis))
        return np.sum(a * b, axis) / length


def cosines(vectors: np.ndarray) -> np.ndarray:
    """The cosine of any two of several vectors, (n, width) → (n, n); as `cosine`, in less memory
    where they are long."""
    vectors = np.asarray(vectors, np.float64)
    with np.errstate(invalid="ignore"):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a − b| of two arrays of one shape, float64. NaN or infinity on both sides are the same; on
    one side they are infinitely far."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise UsageError(f"two shapes, {a.shape} and {b.shape}: there is nothing to compare")
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isnan(far), np.inf, far)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The root mean square difference of arrays (b, …), item by item → (b,) float64."""
    square = (np.asarray(a, np.float64) - b) ** 2
    return np.sqrt(square.reshape(len(square), -1).mean(1))


def parting(a: np.ndarray, b: np.ndarray) -> float:
    """How far a is from b, as a share of what b amounts to: max|a − b| / max|b|.

    0: equal; against zeros, anything else is infinitely far. NaN and infinity in b count as `gap`
    says, and not to what it amounts to.
    """
    b = np.asarray(b, np.float64)
    far = float(np.max(gap(a, b), initial=0.0))
    amount = float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b)))
    if far == 0:
        return 0.0
    return far / amount if amount else np.inf


# --- latents and pictures ------------------------------------------------------------------------


def linear_rgb(
    latents: np.ndarray, matrix: np.ndarray = LATENT_TO_RGB, bias: np.ndarray | float = 0.0
) -> np.ndarray:
    """(…, c) → (…, 3), colours nearly in [-1, 1]: latent @ matrix (c, 3) + bias (3,).

    The default is for SD 1.x's scaled latents; `fit_latent_to_rgb` finds that of another model.
    """
    latents = np.asarray(latents)
    if latents.shape[-1] != len(matrix):
        raise UsageError(
            f"the map to colours takes {len(matrix)} channels, and here are {latents.shape[-1]}: "
            "find one with measure.fit_latent_to_rgb, or hand in sd.decode_latent"
        )
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are for who looks at it
        return latents @ matrix + bias


def fit_latent_to_rgb(
    latents: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The linear map from latents to colours, by least squares: colour ≈ latent @ matrix + bias.

    latents: (b, h, w, c); images: (b, H, W, 3) uint8 or float in [-1, 1], brought to h × w by area.
    Returns the matrix (c, 3), the bias (3,) and r², the share of the variance of the colours that
    the map explains (NaN where they have none).
    """
    latents, images = np.asarray(latents, np.float64), to_model(images, 1)
    if latents.ndim != 4 or len(latents) != len(images):
        raise UsageError(
            f"latents (b, h, w, c) go with images (b, H, W, 3), one each: here are "
            f"{latents.shape} and {images.shape}"
        )
    _, h, w, c = latents.shape
    planes = resize_by_area(np.moveaxis(images, -1, 1), h, w)  # (b, 3, h, w)
    colours = np.moveaxis(planes, 1, -1).reshape(-1, 3)
    known = np.concatenate([latents.reshape(-1, c), np.ones((len(colours), 1))], axis=1)
    found, *_ = np.linalg.lstsq(known, colours)
    missed = np.sum((colours - known @ found) ** 2)
    variance = np.sum((colours - colours.mean(0)) ** 2)
    r2 = 1 - missed / variance if variance else np.nan
    return found[:-1], found[-1], float(r2)
