"""Numbers as a script tells them."""

import numpy as np

from .statistics import standard_error


def with_error(values: np.ndarray, digits: int = 1, unit: str = "") -> str:
    """The mean of independent values (n,) with its standard error: '5.6 ± 1.7 %'; the error of a
    single one is not known, and not told."""
    values = np.asarray(values, np.float64)
    error = f" ± {standard_error(values):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error} {unit}".rstrip()
