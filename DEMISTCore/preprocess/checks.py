"""What an image must be before work on it makes sense; every refusal names the file and the fix."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..volume import Grid, Volume, as_volume

#: Edges of the imaged box (mm) between which a head scan lies.
EXTENT_RANGE = (16.0, 1000.0)
#: Voxel sizes (mm) the model grid may have.
MODEL_SPACING_RANGE = (0.3, 8.0)
#: Voxels the model grid may have along each axis.
MODEL_SIDE_RANGE = (8, 1024)
#: A larger share of NaN or infinite voxels is refused, a smaller one replaced by zero.
NON_FINITE_LIMIT = 0.01
#: Less of the T1w's box than this inside the FLAIR's box: not a pair.
OVERLAP_LIMIT = 0.02


def check_grid_options(spacing: float, shape: tuple[int, int, int] | None, multiple: int) -> None:
    """Refuse a model grid that cannot be.

    Raises:
        InputError: voxel size, shape or multiple out of range; the sentence gives the range.
    """
    low, high = MODEL_SPACING_RANGE
    if not low <= spacing <= high:
        raise InputError(f"A model grid of {spacing:g} mm makes no sense here; choose {low:g} to {high:g} mm.")
    if shape is not None and (len(shape) != 3 or not all(_whole(n, *MODEL_SIDE_RANGE) for n in shape)):
        raise InputError(
            f"The shape of the model grid is three whole numbers from {MODEL_SIDE_RANGE[0]} to {MODEL_SIDE_RANGE[1]}, "
            f"not {' '.join(map(str, shape))}; leave it out to fit the brain."
        )
    if not _whole(multiple, 1, MODEL_SIDE_RANGE[1]):
        raise InputError(f"The sides of the model grid are multiples of 1 or more, not of {multiple}.")


def _whole(number: object, low: int, high: int) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and bool(low <= number <= high)


def load_image(x: Volume | str | os.PathLike[str], name: str, warnings: list[str]) -> Volume:
    """Read an image (float32) and make sure that it can be a head scan.

    What is odd about its header, and few NaN or infinite values, which become zero, add sentences to ``warnings``.

    Raises:
        InputError: unreadable, too small or too large a box, constant, or too many non-finite values.
    """
    volume = as_volume(x, name)
    label = describe(volume, name)
    low, high = EXTENT_RANGE
    extent = volume.grid.extent
    if min(extent) < low or max(extent) > high:
        size = " x ".join(f"{e:.0f}" for e in extent)
        raise InputError(
            f"{label} spans {size} mm, and a head scan spans {low:g} to {high:g} mm along each axis; "
            "check its voxel size or give the full volume."
        )
    warnings += volume.warnings
    array = volume.array
    if array.dtype.kind not in "buif":
        raise InputError(f"{label} holds {array.dtype} values; give grey values.")
    array = array.astype(np.float32, copy=False)
    finite = np.isfinite(array)
    share = 1.0 - np.count_nonzero(finite) / finite.size
    if share >= NON_FINITE_LIMIT:
        raise InputError(
            f"{label} has {share:.0%} NaN or infinite voxels; replace them (by 0 in the background) and try again."
        )
    if share > 0:
        array = np.where(finite, array, np.float32(0))
        warnings.append(f"{label} has {finite.size - np.count_nonzero(finite)} NaN or infinite voxels, taken as 0.")
    if array.min() == array.max():
        raise InputError(f"{label} is constant (all voxels {array.flat[0]:g}); export it again.")
    return volume.with_array(array)


def describe(volume: Volume, name: str) -> Path | str:
    """The file if there is one, otherwise the image's name."""
    return volume.path if volume.path is not None else f"The {name}"


def check_overlap(t1w: Volume, flair: Volume) -> None:
    """Refuse two images that do not lie in one place.

    Raises:
        InputError: the boxes share less than :data:`OVERLAP_LIMIT` of the T1w's.
    """
    if share_inside(t1w.grid, flair.grid) < OVERLAP_LIMIT and share_inside(flair.grid, t1w.grid) < OVERLAP_LIMIT:
        raise InputError(
            f"{describe(t1w, 'T1w')} and {describe(flair, 'FLAIR')} do not overlap in space; give two images of one "
            "person and session, or correct their headers."
        )


def share_inside(grid: Grid, other: Grid, samples: int = 24) -> float:
    """Share of the box of ``grid`` that lies in the box of ``other``, estimated on a lattice of points."""
    axes = [(np.arange(samples) + 0.5) / samples * n - 0.5 for n in grid.shape]
    points = grid.to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1))
    index = other.to_index(points)
    return float(np.mean(np.all((index >= -0.5) & (index <= np.array(other.shape) - 0.5), axis=-1)))
