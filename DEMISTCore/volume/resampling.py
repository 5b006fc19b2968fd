"""Values between voxels: an image on another grid."""

from __future__ import annotations

from typing import Literal

import numpy as np

from .grid import Grid

Order = Literal["nearest", "linear", "bspline"]

#: A Gaussian's full width at half maximum in standard deviations.
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


def resample(
    array: np.ndarray, affine: np.ndarray, grid: Grid, *, order: Order = "linear", fill: float = 0.0
) -> np.ndarray:
    """Resample ``array`` (X, Y, Z), which lies at ``affine``, onto ``grid``.

    Where the grids share their lattice (flips, axis swaps, crops, pads) values are copied exactly. Otherwise,
    for all orders but ``nearest``, an axis that gets coarser is first smoothed by the Gaussian that takes the
    source's voxel (as full width at half maximum) to the target's, so that nothing aliases
    (Cardoso et al., "Scale factor point spread function matching", MICCAI 2015).

    Orders: ``nearest`` for labels; ``linear`` for masks, maps and fields; ``bspline`` for images: cubic B-spline,
    which keeps the sharpness that trilinear interpolation loses between voxel centres, limited to the range of
    the eight voxels around each point, so that it cannot ring at the rim of the brain or go below zero.

    Returns:
        Array of ``grid.shape``: the source's type for ``nearest``, otherwise float32. ``fill`` outside the source.
    """
    if order not in ("nearest", "linear", "bspline"):
        raise ValueError(f"Unknown interpolation order {order!r}.")
    step = np.linalg.inv(affine) @ grid.affine  # target index -> source index
    copied = _copy_lattice(array, step, grid.shape, fill)
    if copied is not None:
        return copied if order == "nearest" else copied.astype(np.float32, copy=False)

    source = array.astype(np.uint8) if array.dtype == bool else array
    if order == "nearest":
        # Any label survives a round trip through float64.
        result = _itk_resample(source.astype(np.float64), step, grid.shape, "nearest", fill)
        return result.astype(array.dtype)
    seen, step = _crop_to_target(source, step, grid.shape)
    if seen is None:
        return np.full(grid.shape, fill, np.float32)
    source = _anti_alias(seen.astype(np.float32, copy=False), step)
    result = _itk_resample(source, step, grid.shape, order, fill)
    return _limit_to_neighbours(result, source, step, fill) if order == "bspline" else result


# All of it in index space: `step` (4, 4) takes target indices to source indices, so that shears, flips and
# oblique axes need no special case.


def _copy_lattice(array: np.ndarray, step: np.ndarray, shape: tuple[int, int, int], fill: float) -> np.ndarray | None:
    """An exact copy where target voxels sit on source voxels, else None."""
    whole = np.round(step)
    # The largest miss over the target's box, in source voxels.
    miss = np.abs(step - whole)[:3] @ np.array([*shape, 1])
    if miss.max() > 1e-3 or not np.array_equal(np.abs(whole[:3, :3]).sum(0), (1, 1, 1)):
        return None
    if not np.array_equal(np.abs(whole[:3, :3]).sum(1), (1, 1, 1)):
        return None
    axes = np.abs(whole[:3, :3]).argmax(0)  # source axis of each target axis
    sign = whole[axes, range(3)]
    start = whole[axes, 3]
    result = np.full(shape, fill, array.dtype)
    into, out_of = [], []
    for n, source_n, flip, first in zip(shape, np.take(array.shape, axes), sign, start):
        index = first + flip * np.arange(n)
        inside = np.flatnonzero((index >= 0) & (index < source_n))
        if inside.size == 0:
            return result
        into.append(slice(inside[0], inside[-1] + 1))
        low, high = sorted((int(index[inside[0]]), int(index[inside[-1]])))
        out_of.append((slice(low, high + 1), slice(None, None, int(flip))))
    piece = array.transpose(axes)[tuple(s for s, _ in out_of)][tuple(f for _, f in out_of)]
    result[tuple(into)] = piece
    return result


def _crop_to_target(
    source: np.ndarray, step: np.ndarray, shape: tuple[int, int, int], margin: int = 12
) -> tuple[np.ndarray | None, np.ndarray]:
    """The part of the source that the target can see, with ``margin`` voxels for filters; None if there is none."""
    corners = Grid(shape, step).corners()
    # Smoothing reaches farther where the target is much coarser.
    reach = margin + np.ceil(2 * np.linalg.norm(step[:3, :3], axis=1))
    low = np.maximum(np.floor(corners.min(0) - reach), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0) + reach) + 1, source.shape).astype(int)
    if (high <= low).any():
        return None, step
    shifted = step.copy()
    shifted[:3, 3] -= low
    return source[tuple(slice(a, b) for a, b in zip(low, high))], shifted


def _anti_alias(source: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Smooth each source axis to the target's voxel size, where that is larger."""
    from scipy.ndimage import gaussian_filter1d

    # Row i of step: how far one target voxel reaches along source axis i, in source voxels.
    for axis, width in enumerate(np.linalg.norm(step[:3, :3], axis=1)):
        sigma = np.sqrt(max(width**2 - 1.0, 0.0)) / _FWHM
        if sigma > 0.1:
            source = gaussian_filter1d(source, sigma, axis=axis, mode="nearest", truncate=3.0)
    return source


def _itk_resample(
    source: np.ndarray, step: np.ndarray, shape: tuple[int, int, int], order: Order, fill: float
) -> np.ndarray:
    """ITK's resampler (threaded, each voxel by itself, so bytes do not depend on the number of threads)."""
    import SimpleITK

    kind = {
        "nearest": SimpleITK.sitkNearestNeighbor,
        "linear": SimpleITK.sitkLinear,
        "bspline": SimpleITK.sitkBSpline,
    }[order]
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(source.transpose(2, 1, 0)))
    transform = SimpleITK.AffineTransform(step[:3, :3].ravel().tolist(), step[:3, 3].tolist())
    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetSize([int(n) for n in shape])
    resampler.SetTransform(transform)
    resampler.SetInterpolator(kind)
    resampler.SetDefaultPixelValue(float(fill))
    result = resampler.Execute(image)  # the view below lives only as long as this name does
    return np.ascontiguousarray(SimpleITK.GetArrayViewFromImage(result).transpose(2, 1, 0))


def _limit_to_neighbours(values: np.ndarray, source: np.ndarray, step: np.ndarray, fill: float) -> np.ndarray:
    """Clip interpolated ``values`` to the range of the eight source voxels around each point."""
    from scipy.ndimage import maximum_filter, minimum_filter

    # A filter of size 2 with origin -1 holds, at i, the extreme of voxels i and i + 1 along each axis. It is looked
    # up at floor(position) = round(position - 1/2); one voxel of padding serves positions before the first centre.
    lookup = step.copy()
    lookup[:3, 3] += 1.0 - 0.5
    limits = []
    for extreme in (minimum_filter, maximum_filter):
        padded = np.pad(extreme(source, size=2, origin=-1, mode="nearest"), ((1, 0),) * 3, mode="edge")
        limits.append(_itk_resample(padded, lookup, values.shape, "nearest", fill))
    return np.clip(values, *limits)
