"""Where a map's squared error comes from: one scale a subject, tissue means, tissue borders, the interior.

Arrays are (X, Y, Z) PSR fractions on one grid; ``mask`` is the brain, ``labels`` its tissues, and nothing outside the
mask counts. With prediction p, truth y and sums over the brain, the total error is E = sum (p - y)^2.

- *scale*: the best single factor s = sum(p y) / sum(p p) leaves E_s = sum (s p - y)^2; its share is 1 - E_s / E.
- *border*, *interior*: E_s split by where it lies, see :func:`near_borders`; with the scale's the shares add up to 1.
- *tissue means*: setting each tissue's mean right takes sum over tissues of n (mean p - mean y)^2 away from E. This
  overlaps with the scale: it is another way to cut the same error, not a fourth part.
"""

from __future__ import annotations

import math

import numpy as np

from ..metrics import DATA_RANGE

#: A voxel is at a border if the centre of a voxel of another tissue (or of the outside) is as near as this.
BORDER_MM = 1.5


def near_borders(labels: np.ndarray, spacing: tuple[float, float, float], distance_mm: float = BORDER_MM) -> np.ndarray:
    """Voxels (bool) with a voxel of another label within ``distance_mm``, centre to centre; 0 is a label too.

    ``labels`` (X, Y, Z); spacing in mm.

    At 1 mm and 1.5 mm these are the voxels that have another label among their 18 neighbours.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    labels = np.asarray(labels)
    reach = [int(distance_mm / step + 1e-6) for step in spacing]
    offsets = np.meshgrid(*(np.arange(-n, n + 1) * step for n, step in zip(reach, spacing)), indexing="ij")
    ball = sum(offset**2 for offset in offsets) <= distance_mm**2 * (1 + 1e-6)
    low, high = (f(labels, footprint=ball, mode="nearest") for f in (minimum_filter, maximum_filter))
    return low != high


def best_scale(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """The factor that brings ``prediction`` closest to ``truth`` in the mask (least squares); NaN for a map of 0.

    Maps and mask are of one shape.
    """
    pred, true = _inside(prediction, truth, mask)
    power = float(pred @ pred)
    return float(pred @ true) / power if power > 0 else math.nan


def scale_error_percent(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """How far the map as a whole is too high (+) or too low (-), percent: 100 (1/s - 1), s from :func:`best_scale`.

    Maps and mask are of one shape.
    """
    scale = best_scale(prediction, truth, mask)
    return 100 * (1 / scale - 1) if scale > 0 else math.nan


def error_split(
    prediction: np.ndarray,
    truth: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    borders: np.ndarray,
) -> dict[str, float]:
    """Shares of the squared error, and what PSNR (dB) would be without some of it.

    Args:
        prediction, truth: (X, Y, Z).
        labels: tissue of each voxel.
        mask: brain.
        borders: from :func:`near_borders`.

    Returns:
        ``share_scale`` + ``share_border`` + ``share_interior`` = 1; ``share_tissue_means``; ``border_voxels`` (share of
        the brain); ``scale_error_percent``; ``psnr_scaled`` and ``psnr_tissue_means``: PSNR after the best scale, and
        with every tissue's mean set right by a constant. Shares of a map without error are NaN.
    """
    pred, true = _inside(prediction, truth, mask)
    inside = np.asarray(mask) > 0
    tissue, at_border = np.asarray(labels)[inside].astype(np.int64), np.asarray(borders)[inside] > 0
    error = pred - true
    total = float(error @ error)
    scale = best_scale(prediction, truth, mask)
    left = ((scale if math.isfinite(scale) else 1.0) * pred - true) ** 2
    counts = np.bincount(tissue)
    sums = np.bincount(tissue, error)
    by_means = float(np.sum(sums[counts > 0] ** 2 / counts[counts > 0]))

    def share(part: float) -> float:
        return part / total if total > 0 else math.nan

    return {
        "share_scale": share(total - float(left.sum())),
        "share_border": share(float(left[at_border].sum())),
        "share_interior": share(float(left[~at_border].sum())),
        "share_tissue_means": share(by_means),
        "border_voxels": float(at_border.mean()),
        "scale_error_percent": scale_error_percent(prediction, truth, mask),
        "psnr_scaled": _psnr(float(left.sum()), pred.size),
        "psnr_tissue_means": _psnr(max(0.0, total - by_means), pred.size),
    }


def _psnr(squares: float, count: int) -> float:
    return 10 * math.log10(DATA_RANGE**2 * count / squares) if squares > 0 else math.inf


def _inside(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside = np.asarray(mask) > 0
    if not inside.any():
        raise ValueError("The mask is empty: there is nothing to measure.")
    return np.asarray(prediction, np.float64)[inside], np.asarray(truth, np.float64)[inside]
