"""Where the brain is: seen from an outline that is there already, or found by deepbet.

deepbet: Fisch et al., "deepbet: fast brain extraction of T1-weighted MRI using convolutional neural networks",
Computers in Biology and Medicine 179 (2024). Its weights come with its wheel; nothing is downloaded.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..volume import Volume
from .checks import describe

if TYPE_CHECKING:
    from deepbet import BrainExtraction

log = logging.getLogger(__name__)

#: A skull-stripped image holds between these volumes (ml); a head holds more, even from the eyes upwards.
_BRAIN_ML = (300.0, 2200.0)
#: Share of constant background from which an image can be a stripped one.
_BACKGROUND_SHARE = 0.2
#: At depths of 4 to 12 mm, spread (10th to 90th percentile) over median, and median over that of all deeper voxels.
#: Brains, real and simulated, reach 0.7 and 1.0; heads and slabs of heads begin at 1.9 or, with thick fat, at 1.4.
_BRAIN_SPREAD, _BRAIN_SHELL = 1.2, 1.2


def background(array: np.ndarray) -> tuple[float, np.ndarray]:
    """The most common value on the faces of the box, and the voxels that (nearly) hold it."""
    faces = np.concatenate([np.take(array, index, axis).ravel() for axis in range(3) for index in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    value = float(values[counts.argmax()])
    # Interpolation leaves traces of the order of 1e-3 around a stripped brain.
    tolerance = 1e-3 * float(np.percentile(np.abs(array - value), 99.5))
    return value, np.abs(array - value) <= tolerance


def foreground(array: np.ndarray) -> np.ndarray:
    """All that is not constant background, holes filled; everything, if there is no such background."""
    empty = background(array)[1]
    if empty.mean() < 0.05 or empty.all():
        return np.ones(array.shape, bool)
    return largest_filled(~empty)


def largest_filled(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece of ``mask`` (faces touching), with its holes filled."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, bool)
    piece = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    box = ndimage.find_objects(piece.view(np.uint8))[0]
    result = np.zeros(mask.shape, bool)
    result[box] = ndimage.binary_fill_holes(piece[box])
    return result


def recognise_stripped(t1w: Volume) -> Volume | None:
    """The brain (0 or 1), if ``t1w`` shows nothing else on a constant background; None if it shows a head.

    Conservative, because a head taken for a brain ruins the result, while deepbet copes with stripped images: the
    foreground must have a brain's volume, and its outer centimetre the even brightness of cortex and white matter.
    """
    from scipy import ndimage

    empty = background(t1w.array)[1]
    if empty.mean() < _BACKGROUND_SHARE:
        return None
    inside = largest_filled(~empty)
    low, high = _BRAIN_ML
    if not low <= np.count_nonzero(inside) * t1w.grid.voxel_volume_ml <= high:
        return None
    # Depths are measured on a coarse grid; a slab's open ends are no surface.
    grid = t1w.grid.isotropic(2.0)
    coarse = t1w.resampled_to(grid).array
    mask = t1w.with_array(inside.astype(np.float32)).resampled_to(grid).array >= 0.5
    depth = 2.0 * ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1, 1:-1]
    coarse = coarse - background(t1w.array)[0]
    shell, deep = coarse[(depth > 4.0) & (depth <= 12.0)], coarse[depth > 12.0]
    if shell.size == 0 or deep.size == 0:
        return None
    lower, middle, upper = np.percentile(shell, (10, 50, 90))
    spread = (upper - lower) / max(abs(middle), 1e-12)
    ratio = middle / max(float(np.median(deep)), 1e-12)
    log.debug("Foreground of a brain's volume; its outer shell: spread %.2f, %.2f of the core", spread, ratio)
    return t1w.with_array(inside.astype(np.float32)) if spread < _BRAIN_SPREAD and ratio < _BRAIN_SHELL else None


@lru_cache(maxsize=2)
def _deepbet(device: str) -> BrainExtraction:
    from deepbet import BrainExtraction

    extraction = BrainExtraction(no_gpu=True)
    extraction.model.to(device)
    extraction.bbox_model.to(device)
    return extraction


def extract_brain(t1w: Volume, device: str = "cpu") -> Volume:
    """The brain (0 or 1) by deepbet, at 1 mm on the T1w's own axes in RAS order.

    Raises:
        InputError: no brain found, or the device is not there.
    """
    import torch

    # deepbet expects the nearest RAS order and looks at nearest neighbours: even voxels serve it best.
    volume = t1w.resampled_to(t1w.grid.isotropic(1.0))
    try:
        extraction = _deepbet(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device {device!r} cannot be used ({_first_line(error)}); choose cpu.") from error
    try:
        with torch.inference_mode():
            probability = extraction.run_model(volume.array.copy())
    except (AssertionError, ValueError, IndexError) as error:
        # deepbet fails in these ways where its first, coarse network sees no brain at all.
        raise InputError(
            f"No brain was found in {describe(t1w, 'T1w')}; is it a T1w of a head? Otherwise give a brain mask "
            "(--brain-mask)."
        ) from error
    return volume.with_array(largest_filled(probability > 0.5).astype(np.float32))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
