"""Brightness that is not tissue: smooth bias fields, and slices that alternate between bright and dark.

N4: Tustison et al., "N4ITK: improved N3 bias correction", IEEE TMI 2010, by SimpleITK.
"""

from __future__ import annotations

import logging

import numpy as np

from ..volume import Grid, Volume, to_sitk
from .threads import one_thread

log = logging.getLogger(__name__)

#: The field is smooth: it is estimated on voxels of this size (mm) and evaluated at full resolution.
_SPACING = 5.0
#: Largest number of iterations at each resolution of the B-spline field, coarse to fine. Three resolutions: a fourth
#: takes white matter for bias (it finds 13 % in images that were corrected before, three find nothing).
_ITERATIONS = (50, 40, 30)
#: A field that varies by less than this inside the brain is noise of the estimate.
_LEAST_RANGE = 0.01

#: Slices this much thicker than the voxels are wide come from two-dimensional, often interleaved imaging.
_THICK = 1.5
#: An alternation (log brightness) below this is none.
_LEAST_ALTERNATION = 0.005


def correct_interleave(volume: Volume, brain: Volume) -> tuple[Volume, float]:
    """Undo the alternating brightness of interleaved thick slices, which a map would show as stripes.

    In interleaved two-dimensional imaging, neighbouring slices excite each other, and all odd slices come out
    brighter or darker than all even ones. Log brightness of slice k against the mean of its neighbours at the same
    places, times (-1)^k, is that alternation plus anatomy; the mean of two consecutive ones cancels what anatomy
    changes smoothly, and their median is the alternation. It is undone if four in five agree in its sign.

    Args:
        volume: image as acquired, with its own slices.
        brain: >= 0.5 inside, on any grid in the volume's space.

    Returns:
        The image with even slices, and the brightness ratio of odd and even slices minus 1; the image as it is and
        0, if the voxels are not thick along one axis or slices do not alternate.
    """
    axis = int(np.argmax(volume.spacing))
    others = [s for i, s in enumerate(volume.spacing) if i != axis]
    if volume.spacing[axis] < _THICK * max(others) or volume.shape[axis] < 10:
        return volume, 0.0
    array = np.moveaxis(volume.array, axis, -1)
    mask = np.moveaxis(brain.resampled_to(volume).array >= 0.5, axis, -1)
    if not mask.any():
        return volume, 0.0
    middle = float(np.median(array[mask]))
    mask = mask & (array > 0.4 * middle)  # tissue; fluid and noise have no stable logarithm
    logarithm = np.log(np.where(mask, array, max(middle, 1e-12)))
    contrast = np.full(array.shape[-1], np.nan)
    for k in range(1, array.shape[-1] - 1):
        there = mask[..., k - 1] & mask[..., k] & mask[..., k + 1]
        if np.count_nonzero(there) >= 200:
            around = (logarithm[..., k - 1] + logarithm[..., k + 1])[there] / 2
            contrast[k] = (-1) ** k * np.median(logarithm[..., k][there] - around) / 2
    pairs = (contrast[1:] + contrast[:-1]) / 2
    pairs = pairs[np.isfinite(pairs)]
    if pairs.size < 6:
        return volume, 0.0
    alternation = float(np.median(pairs))
    if abs(alternation) < _LEAST_ALTERNATION or np.mean(np.sign(pairs) == np.sign(alternation)) < 0.8:
        return volume, 0.0
    gain = np.exp(-alternation * (-1.0) ** np.arange(array.shape[-1])).astype(np.float32)
    even = np.ascontiguousarray(np.moveaxis(array * gain, -1, axis))
    return volume.with_array(even), float(np.expm1(2 * abs(alternation)))


def correct_bias(array: np.ndarray, mask: np.ndarray, spacing: float) -> tuple[np.ndarray, float]:
    """Divide ``array`` by the smooth multiplicative field that N4 sees inside ``mask``.

    Deterministic: one thread.

    Args:
        array: intensities (X, Y, Z) on isotropic voxels, with brain tissue above zero.
        mask: bool (X, Y, Z), the brain.
        spacing: voxel size, mm.

    Returns:
        The corrected float32 image (mean of the logarithmic field in the mask: 0), and the range (95th over 5th
        percentile, minus 1) of the field in the mask. If N4 fails, the image as it was and 0.
    """
    import SimpleITK

    grid = Grid(array.shape, np.diag([spacing] * 3 + [1.0]))
    coarse_grid = grid.isotropic(max(_SPACING, spacing))
    # Means over the tissue in each coarse voxel, so that the dark outside does not mix in. Zero and negative
    # values (rims of interpolated images, fluid) have no logarithm and take no part.
    used = (mask & (array > 0)).astype(np.float32)
    weight = Volume(used, grid.affine).resampled_to(coarse_grid).array
    total = Volume(array * used, grid.affine).resampled_to(coarse_grid).array
    inside = weight > 0.5
    if np.count_nonzero(inside) < 500:
        return array.astype(np.float32, copy=False), 0.0
    coarse = Volume(np.where(inside, total / np.maximum(weight, 1e-6), 0).astype(np.float32), coarse_grid.affine)

    corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(_ITERATIONS)
    corrector.SetConvergenceThreshold(1e-3)
    try:
        with one_thread():
            corrector.Execute(to_sitk(coarse), to_sitk(coarse.with_array(inside)))
            field = corrector.GetLogBiasFieldAsImage(to_sitk(Volume(array, grid.affine)))
    except RuntimeError:
        log.warning("N4 failed; the image keeps its bias field.")
        log.debug("N4", exc_info=True)
        return array.astype(np.float32, copy=False), 0.0
    log_bias = SimpleITK.GetArrayFromImage(field).transpose(2, 1, 0)
    values = log_bias[mask]
    low, high = np.percentile(values, (5, 95))
    spread = float(np.expm1(high - low))
    if not np.isfinite(spread) or spread < _LEAST_RANGE:
        return array.astype(np.float32, copy=False), 0.0
    return (array / np.exp(log_bias - values.mean())).astype(np.float32), spread
