"""How far two arrays are apart."""

from collections.abc import Iterator

import numpy as np

from stable_diffusion_tf.errors import UsageError

PIECE = 2**20  # numbers that are compared at once


def cosine(a: np.ndarray, b: np.ndarray, axis: int | None = None) -> float | np.ndarray:
    """Cosine of the angle between two arrays as vectors, or between the vectors along an axis,
    (…, n, …) → (…). A vector of zeros has no angle: NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        aa, bb, ab = (
            np.sum(np.multiply(x, y, dtype=np.float64), axis) for x, y in ((a, a), (b, b), (a, b))
        )
        return ab / (np.sqrt(aa) * np.sqrt(bb))


def cosines(vectors: np.ndarray) -> np.ndarray:
    """The cosine of any two of several vectors, (n, width) → (n, n); as `cosine`, in less memory
    where they are long."""
    vectors = np.asarray(vectors, np.float64)
    with np.errstate(invalid="ignore"):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def principal_components(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, width) along their first two principal components, (n, 2), and the share of the
    variance that each has, (2,)."""
    left, sizes, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    return left[:, :2] * sizes[:2], sizes[:2] ** 2 / np.sum(sizes**2)


def gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a − b| of two arrays of one shape, float64. NaN or infinity on both sides are the same; on
    one side they are infinitely far."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    check_shapes(a, b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isnan(far), np.inf, far)


def check_shapes(a: np.ndarray, b: np.ndarray) -> None:
    if np.shape(a) != np.shape(b):
        raise UsageError(
            f"two shapes, {np.shape(a)} and {np.shape(b)}: there is nothing to compare"
        )


def pieces(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Two arrays of one shape piece by piece, so that float64 of all is never held at once."""
    check_shapes(a, b)
    a, b = np.ravel(a), np.ravel(b)
    for start in range(0, a.size, PIECE):
        yield a[start : start + PIECE], b[start : start + PIECE]


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The root mean square difference of arrays (b, …), item by item → (b,) float64."""
    square = (np.asarray(a, np.float64) - b) ** 2
    return np.sqrt(square.reshape(len(square), -1).mean(1))


def parting(a: np.ndarray, b: np.ndarray) -> float:
    """How far a is from b, as a share of what b amounts to: max|a − b| / max|b|.

    0: equal; against zeros, anything else is infinitely far. NaN and infinity in b count as `gap`
    says, and not to what it amounts to.
    """
    far = amount = 0.0
    for x, y in pieces(a, b):
        far = max(far, float(gap(x, y).max()))
        size = np.abs(np.asarray(y, np.float64))
        amount = max(amount, float(np.max(size, initial=0.0, where=np.isfinite(size))))
    if far == 0:
        return 0.0
    return far / amount if amount else np.inf
