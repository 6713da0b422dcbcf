"""Measures of maps and masks; the last two axes are rows and columns."""

import numpy as np

from stable_diffusion_tf.errors import UsageError


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


def mass_inside(heat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of a map that lies in the mask, its smallest value taken for none: (…, h, w) → (…).
    The energy-based pointing game of arXiv 1910.01279; a constant map has the mask's own part."""
    check_mask(mask, np.shape(heat))
    level = between_extremes(heat)
    return np.sum(level * mask, axis=(-2, -1)) / np.sum(level, axis=(-2, -1))


def leakage(heat: np.ndarray, mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of what a map has on its own mask and on another, each the mean over its area, the part on
    the other: (…, h, w) → (…). 0 is none, ½ as much as on its own; the map's smallest value is
    taken for none, and one that has nothing on either leaks half."""
    check_mask(mask, np.shape(heat))
    check_mask(other, np.shape(heat))
    level = between_extremes(heat)
    own, wrong = (
        np.sum(level * one, axis=(-2, -1)) / np.maximum(np.sum(one, axis=(-2, -1)), 1)
        for one in (mask, other)
    )
    both = own + wrong
    return np.where(both > 0, wrong / np.where(both > 0, both, 1), 0.5)


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
