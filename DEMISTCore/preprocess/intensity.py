"""Intensities: one scale for all scanners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Only the T1w's tissue sets the scale, and only voxels this deep (mm) the dark end: brain masks of different tools
#: differ by up to a quarter in the fluid and dura they include, which moved plain percentiles of the mask by a tenth.
_DEEP = 10.0
#: Tissue begins at this share of the way from the darkest to the 95th percentile (white matter) of the T1w. Fluid lies
#: below 0.35, cortex above 0.55 of the way on MPRAGE and spoiled gradient echo.
_TISSUE = 0.45
_ENOUGH = 500  # voxels, below which a percentile of them says little


def normalize(images: Sequence[np.ndarray], mask: np.ndarray, spacing: float = 1.0) -> list[np.ndarray]:
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
    inside = np.asarray(mask) > 0
    if not inside.any():
        return [np.zeros(image.shape, np.float32) for image in images]
    deep = inside & (depth(inside, spacing) > _DEEP)
    if np.count_nonzero(deep) < _ENOUGH:
        deep = inside
    t1w = np.asarray(images[0], np.float64)
    dark, white = np.percentile(t1w[deep], 1.0), np.percentile(t1w[inside], 95.0)
    tissue = inside & (t1w > dark + _TISSUE * (white - dark))
    if np.count_nonzero(tissue) < min(_ENOUGH, int(np.count_nonzero(inside)) // 4):
        tissue = inside
    return [_rescaled(np.asarray(image, np.float64), inside, deep, tissue) for image in images]


def depth(inside: np.ndarray, spacing: float) -> np.ndarray:
    """Distance (mm) to the brain's surface; holes in the mask have none, see :func:`.brainmask.solid`.

    ``inside`` (X, Y, Z); spacing in mm.
    """
    from scipy.ndimage import distance_transform_edt

    from .brainmask import solid

    return distance_transform_edt(np.pad(solid(inside, spacing), 1))[1:-1, 1:-1, 1:-1] * spacing


def _rescaled(image: np.ndarray, inside: np.ndarray, deep: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    result = np.zeros(image.shape, np.float32)
    dark, middle = np.percentile(image[deep], 1.0), np.median(image[tissue])
    if middle <= dark:  # an image that is darker in tissue than in fluid: no FLAIR and no T1w, but keep its contrast
        dark, middle = np.percentile(image[inside], (1.0, 50.0))
    if middle > dark:
        result[inside] = np.clip(0.5 * (image[inside] - dark) / (middle - dark), -0.5, 2.0)
    return result
