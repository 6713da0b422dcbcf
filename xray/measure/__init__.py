"""Pure numbers about arrays. They are NumPy; pictures are channels last, maps are (…, h, w)."""

from .arrays import cosine, cosines, distance, gap, parting, principal_components
from .colours import LATENT_TO_RGB, fit_latent_to_rgb, linear_rgb, saturation
from .estimates import Estimate, mean_of, p_value, share_of
from .images import blur, contrast, detail, psnr, ssim
from .masks import (
    best_iou,
    between_extremes,
    check_mask,
    covered,
    iou,
    iou_at,
    leakage,
    mass_inside,
    overlaps,
    pointing,
    resize_by_area,
)
from .statistics import Normality, Spectrum, entropy, normality, rank_correlation, spectrum

__all__ = [
    "LATENT_TO_RGB",
    "Estimate",
    "Normality",
    "Spectrum",
    "best_iou",
    "between_extremes",
    "blur",
    "check_mask",
    "contrast",
    "cosine",
    "cosines",
    "covered",
    "detail",
    "distance",
    "entropy",
    "fit_latent_to_rgb",
    "gap",
    "iou",
    "iou_at",
    "leakage",
    "linear_rgb",
    "mass_inside",
    "mean_of",
    "normality",
    "overlaps",
    "p_value",
    "parting",
    "pointing",
    "principal_components",
    "psnr",
    "rank_correlation",
    "resize_by_area",
    "saturation",
    "share_of",
    "spectrum",
    "ssim",
]
