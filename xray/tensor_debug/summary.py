"""Arrays in words: what can be said of one in a line."""

import math

import numpy as np

BARS, BLOCKS = 12, " ▁▂▃▄▅▆▇█"


def facts(array: np.ndarray) -> dict[str, int | str]:
    """Mean, standard deviation and range of the finite values; how many are NaN, inf and zero."""
    finite = array[np.isfinite(array)]
    nans = int(np.isnan(array).sum())
    counts = {
        "NaN": nans,
        "inf": array.size - finite.size - nans,
        "zeros": int(np.count_nonzero(array == 0)),
    }
    if not finite.size:
        return dict.fromkeys(("mean", "std", "least", "most"), "–") | counts
    scaled, scale = unit(finite)  # the square of a large value would overflow
    least, most = (plain_number(pick(finite)) for pick in (np.min, np.max))
    mean, std = (f"{moment(scaled) * scale:.3g}" for moment in (np.mean, np.std))
    return {"mean": mean, "std": std, "least": least, "most": most} | counts


def bars(array: np.ndarray) -> str:
    """The histogram of the finite values in block characters, '|▁▃█▃▁|'; '' where there are none.

    A blank is an empty bin; one value only stands in the middle.
    """
    finite, _ = unit(array[np.isfinite(array)])
    if not finite.size:
        return ""
    low, high = finite.min(), finite.max()
    place = (finite - low) / (high - low) if high > low else np.full(finite.shape, 0.5)
    bins = np.minimum((place * BARS).astype(int), BARS - 1)
    counts = np.bincount(bins.ravel(), minlength=BARS)
    heights = np.ceil(counts / counts.max() * (len(BLOCKS) - 1)).astype(int)
    return f"|{''.join(BLOCKS[height] for height in heights)}|"


def unit(finite: np.ndarray) -> tuple[np.ndarray, float]:
    """Values divided by the largest, float64 in [-1, 1], and what they were divided by."""
    values = finite.astype(np.float64)
    scale = float(np.max(np.abs(values), initial=0.0)) or 1.0
    return values / scale, scale


def plain_number(value: np.generic) -> str:
    """Integers in full, anything else to three digits."""
    return f"{value:.3g}" if isinstance(value, np.floating) else str(int(value))


def plain_bytes(count: int) -> str:
    """'16 bytes', '65.5 kB', '1.2 GB': powers of a thousand."""
    if count < 1000:
        return f"{count} bytes"
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:.1f} {' kMGT'[power]}B"
