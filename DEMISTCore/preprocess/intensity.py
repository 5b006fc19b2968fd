"""Intensities: one scale for all scanners, and a look at whether the two images are what they are called."""

from __future__ import annotations

import logging

import numpy as np

log = logging.getLogger(__name__)

#: Correlation in the brain above which two images are one. Fluid is dark on both, so true pairs correlate, too.
_SAME_IMAGE = 0.98
#: See deep_over_rim: true pairs are above 0, swapped ones below.
_SWAPPED = -0.04


def normalise(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bring intensities inside ``mask`` to a scale on which 0 is the darkest tissue and 0.5 the median.

    x -> clip(0.5 (x - p1) / (median - p1), -0.5, 2), with p1 the first percentile, both taken in the mask. Robust:
    a few bright vessels or lesions do not move it. Affine changes of intensity leave the result as it is.

    Args:
        array: intensities (X, Y, Z).
        mask: brain (X, Y, Z), true or nonzero inside.

    Returns:
        float32 (X, Y, Z), 0 outside the mask; all 0 if the mask is empty or holds one value only.
    """
    inside = np.asarray(mask) > 0
    result = np.zeros(array.shape, np.float32)
    values = array[inside].astype(np.float64)
    if values.size == 0:
        return result
    dark, middle = np.percentile(values, (1.0, 50.0))
    if middle <= dark:
        return result
    result[inside] = np.clip(0.5 * (values - dark) / (middle - dark), -0.5, 2.0)
    return result


def contrast_warning(t1w: np.ndarray, flair: np.ndarray, mask: np.ndarray, spacing: float) -> str | None:
    """A sentence if the two look swapped or like one and the same image, else None.

    On a T1w white matter is brighter than grey, on a FLAIR darker or alike. Cortex lies near the surface, white
    matter deep, and fluid is dark on both: so the ratio of deep tissue to rim is larger on the T1w.

    Args:
        t1w: normalised (X, Y, Z), see :func:`normalise`.
        flair: likewise.
        mask: brain, true inside.
        spacing: voxel size, mm.
    """
    values = np.stack([t1w[mask], flair[mask]])
    likeness = float(np.corrcoef(values)[0, 1])
    if likeness > _SAME_IMAGE:
        return "T1w and FLAIR are almost the same image; check that the files are the two they should be."
    contrast = deep_over_rim(t1w, flair, mask, spacing)
    log.debug("Correlation of T1w and FLAIR %.2f; deep over rim, T1w against FLAIR: %+.3f", likeness, contrast)
    if contrast < _SWAPPED:
        return "T1w and FLAIR look swapped (white matter is the brighter one on the FLAIR); check their order."
    return None


def deep_over_rim(t1w: np.ndarray, flair: np.ndarray, mask: np.ndarray, spacing: float) -> float:
    """log of (deep / rim brightness on the T1w) over (the same on the FLAIR), fluid left out; 0 if undecidable."""
    from scipy.ndimage import distance_transform_edt

    stride = max(1, round(2.0 / spacing))
    t1w, flair, mask = (a[::stride, ::stride, ::stride] for a in (t1w, flair, mask))
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1] * stride * spacing
    tissue = mask & (t1w > 0.25) & (flair > 0.25)
    rim, deep = tissue & (depth > 1.5) & (depth < 6.0), tissue & (depth > 12.0)
    if min(np.count_nonzero(rim), np.count_nonzero(deep)) < 200:
        return 0.0
    ratios = [np.median(image[deep]) / np.median(image[rim]) for image in (t1w, flair)]
    return float(np.log(ratios[0] / ratios[1]))
