"""Intensities: one scale for all scanners, and a look at whether the two images are what they are called."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

log = logging.getLogger(__name__)

#: Correlation in the brain above which two images are one. Fluid is dark on both, so true pairs correlate, too.
_SAME_IMAGE = 0.98
#: See deep_over_rim: true pairs are above 0, swapped ones below.
_SWAPPED = -0.04


#: Only the T1w's tissue sets the scale, and only voxels this deep (mm) the dark end: brain masks of different tools
#: differ by up to a quarter in the fluid and dura they include, which moved plain percentiles of the mask by a tenth.
_DEEP = 10.0
#: Tissue begins at this share of the way from the darkest to the 95th percentile (white matter) of the T1w. Fluid lies
#: below 0.35, cortex above 0.55 of the way on MPRAGE and spoiled gradient echo.
_TISSUE = 0.45
_ENOUGH = 500  # voxels, below which a percentile of them says little


def normalise(images: Sequence[np.ndarray], mask: np.ndarray, spacing: float = 1.0) -> list[np.ndarray]:
    """Bring T1w and FLAIR to a scale on which 0 is deep-lying fluid and 0.5 the median of the brain's tissue.

    x -> clip(0.5 (x - dark) / (middle - dark), -0.5, 2), each image by itself. dark: its first percentile deeper than
    10 mm in the mask, that is the ventricles; middle: its median over the voxels in which the *T1w* is tissue, not
    fluid. Neither hangs on how generous the mask is, on lesions or bright vessels. Affine changes of intensity leave
    the result as it is.

    Args:
        images: T1w and, of the same shape (X, Y, Z), any others. The T1w says what is tissue.
        mask: brain (X, Y, Z), true or nonzero inside.
        spacing: voxel size, mm.

    Returns:
        float32 (X, Y, Z) each, 0 outside the mask; all 0 if the mask is empty or the image holds one value in it.
    """
    from scipy.ndimage import distance_transform_edt

    inside = np.asarray(mask) > 0
    if not inside.any():
        return [np.zeros(image.shape, np.float32) for image in images]
    depth = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1, 1:-1] * spacing
    deep = depth > _DEEP
    if np.count_nonzero(deep) < _ENOUGH:
        deep = inside
    t1w = np.asarray(images[0], np.float64)
    dark, white = np.percentile(t1w[deep], 1.0), np.percentile(t1w[inside], 95.0)
    tissue = inside & (t1w > dark + _TISSUE * (white - dark))
    if np.count_nonzero(tissue) < min(_ENOUGH, np.count_nonzero(inside) // 4):
        tissue = inside
    return [_rescaled(np.asarray(image, np.float64), inside, deep, tissue) for image in images]


def _rescaled(image: np.ndarray, inside: np.ndarray, deep: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    result = np.zeros(image.shape, np.float32)
    dark, middle = np.percentile(image[deep], 1.0), np.median(image[tissue])
    if middle <= dark:  # an image that is darker in tissue than in fluid: no FLAIR and no T1w, but keep its contrast
        dark, middle = np.percentile(image[inside], (1.0, 50.0))
    if middle > dark:
        result[inside] = np.clip(0.5 * (image[inside] - dark) / (middle - dark), -0.5, 2.0)
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
