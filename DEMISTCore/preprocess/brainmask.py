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
from ..volume import Grid, Volume
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

#: See :func:`solid`. The aqueduct is 2 mm wide; ventricles lie deeper than sulci, but for the Sylvian fissures' floor.
_PASSAGE, _DEEP_GAP = 4.0, 10.0
#: Air (mm) that is left around the head for deepbet.
_MARGIN = 20.0
#: Pieces of a given mask below this share of the largest are specks.
_PIECE = 0.01


def background(array: np.ndarray) -> tuple[float, np.ndarray]:
    """The most common value on the faces of the box, and the voxels that (nearly) hold it.

    (X, Y, Z); the value is in the image's unit.
    """
    faces = np.concatenate([np.take(array, index, axis).ravel() for axis in range(3) for index in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    value = float(values[counts.argmax()])
    # Interpolation leaves traces of the order of 1e-3 around a stripped brain.
    tolerance = 1e-3 * float(np.percentile(np.abs(array - value), 99.5))
    return value, np.abs(array - value) <= tolerance


def foreground(array: np.ndarray, spacing: tuple[float, float, float] | float = 1.0) -> np.ndarray:
    """All that is not constant background, holes filled; everything, if there is no such background.

    (X, Y, Z), in any unit; spacing in mm; the result is bool.
    """
    empty = background(array)[1]
    if empty.mean() < 0.05 or empty.all():
        return np.ones(array.shape, bool)
    return largest_filled(~empty, spacing)


def largest_filled(mask: np.ndarray, spacing: tuple[float, float, float] | float = 1.0) -> np.ndarray:
    """The largest connected piece of ``mask`` (faces touching), without gaps inside: see :func:`solid`.

    (X, Y, Z), spacing in mm; the result is bool.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, bool)
    piece = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return solid(piece, spacing)


def solid(mask: np.ndarray, spacing: tuple[float, float, float] | float = 1.0) -> np.ndarray:
    """``mask`` without gaps inside: enclosed holes, and ventricles that open outwards through a narrow passage only.

    What depends on depth in the brain (ventricles are fluid far from the surface) must not hang on one voxel: a
    single open one makes a surface in the middle of the brain. So holes are filled, and then all that lies deeper
    than :data:`_DEEP_GAP` in the mask whose passages narrower than :data:`_PASSAGE` were closed. Sulci, which are as
    narrow but not as deep, stay open.

    Args:
        mask: bool (X, Y, Z).
        spacing: voxel size, mm.
    """
    from scipy import ndimage

    size = np.broadcast_to(spacing, 3)
    if not mask.any():
        return mask.copy()
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    result = mask.copy()
    steps = max(1, round(_PASSAGE / 2 / float(size.max())))
    inside = _without_holes(np.pad(mask[box], steps + 1))
    closed = _without_holes(ndimage.binary_closing(inside, iterations=steps))
    gaps = np.stack(np.nonzero(closed & ~inside), -1)
    if len(gaps):
        # Depth to 2 mm is enough to tell ventricles from sulci, and eight times as fast.
        strides = np.maximum(1, np.floor(2.0 / size).astype(int))
        coarse = closed[tuple(slice(None, None, int(stride)) for stride in strides)]
        depth = ndimage.distance_transform_edt(coarse, sampling=size * strides)
        gaps = gaps[depth[tuple((gaps // strides).T)] > _DEEP_GAP]
        inside[tuple(gaps.T)] = True
    result[box] = inside[(slice(steps + 1, -steps - 1),) * 3]
    return result


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """All that the background at the corner cannot reach: ``binary_fill_holes`` of a padded mask, a tenth the time."""
    from scipy import ndimage

    outside = ndimage.label(~mask)[0]
    return outside != outside[0, 0, 0]


def cleaned(mask: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, int, int]:
    """A given brain mask as own ones are: without gaps inside and without specks.

    ``mask`` (X, Y, Z); spacing in mm.

    Pieces stay if they hold :data:`_PIECE` of the largest: hemispheres may be apart, and so may the cerebellum.

    Returns:
        The mask (bool), how many voxels were filled, and how many left out.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    kept = mask
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        kept = (sizes >= _PIECE * sizes.max())[labels]
    filled = solid(kept, spacing)
    added = int(np.count_nonzero(filled & ~mask))
    return filled, added, int(np.count_nonzero(mask & ~filled))


def recognise_stripped(t1w: Volume) -> Volume | None:
    """The brain (0 or 1), if ``t1w`` shows nothing else on a constant background; None if it shows a head.

    Conservative, because a head taken for a brain ruins the result, while deepbet copes with stripped images: the
    foreground must have a brain's volume, and its outer centimetre the even brightness of cortex and white matter.
    """
    from scipy import ndimage

    empty = background(t1w.array)[1]
    if empty.mean() < _BACKGROUND_SHARE:
        return None
    inside = largest_filled(~empty, t1w.spacing)
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


def find_head(t1w: Volume, grid: Grid) -> np.ndarray:
    """All of the T1w that is not air, with what it encloses: bool (X, Y, Z) on ``grid``.

    However wide the empty margins are: they have no say in how bright the head is.
    """
    level, empty = background(t1w.array)
    image = t1w.resampled_to(grid, fill=float(t1w.array.min())).array
    content = t1w.array if empty.mean() < _BACKGROUND_SHARE or empty.all() else t1w.array[~empty]
    low, high = min(level, float(np.percentile(content, 1.0))), float(np.percentile(content, 99.0))
    return largest_filled(image > low + 0.1 * (high - low), grid.spacing)


def cropped_to_head(volume: Volume) -> Volume:
    """The image without margins of air wider than :data:`_MARGIN`; deepbet looks at the whole box, and loses its way
    in a head that is lost in it (90 mm of air on each side gave 3776 ml of brain)."""
    from scipy import ndimage

    coarse = volume.grid.isotropic(4.0)
    box = ndimage.find_objects(find_head(volume, coarse).astype(np.uint8))
    if not box:
        return volume
    ends = coarse.to_world(np.array(np.meshgrid(*((s.start - 0.5, s.stop - 0.5) for s in box[0]))).reshape(3, -1).T)
    index = volume.grid.to_index(ends)
    margin = _MARGIN / np.array(volume.spacing)
    low = np.maximum(np.floor(index.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(index.max(0) + margin) + 1, volume.shape).astype(int)
    if not (high > low).all():
        return volume
    affine = volume.affine.copy()
    affine[:3, 3] = volume.grid.to_world(low)
    return Volume(np.ascontiguousarray(volume.array[tuple(map(slice, low, high))]), affine, volume.path)


def extract_brain(t1w: Volume, device: str = "cpu") -> Volume:
    """The brain (0 or 1) by deepbet, at 1 mm on the T1w's own axes in RAS order, around the head.

    Raises:
        InputError: no brain found, or the device is not there.
    """
    import torch

    # deepbet expects the nearest RAS order and looks at nearest neighbours: even voxels serve it best.
    volume = cropped_to_head(t1w.resampled_to(t1w.grid.isotropic(1.0)))
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
