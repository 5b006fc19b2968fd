"""How much coarser a measured map is than the grid it is brought to.

A qMT slice of 5 mm mixes what lies in it, and interpolation between slices smooths once more. A model that is told such
a map is the truth learns that white matter has less myelin and fluid has some. So the map is compared with what its
scan would have seen of the model's map: that map blurred by the Gaussian of this module.
"""

from __future__ import annotations

import numpy as np

from ..volume import Grid

#: Maps whose voxels are less than so many of the grid's in every direction are compared as they are.
_COARSER = 1.5
#: Variance of a Gaussian, in squares of its full width at half maximum.
_OF_FWHM = 1 / (8 * np.log(2))
#: Mean variance of linear interpolation, in squares of the spacing: that of a triangle.
_OF_LINEAR = 1 / 6


def blur_of(affine: np.ndarray, motion: np.ndarray | None, grid: Grid) -> np.ndarray | None:
    """Covariance (3, 3), in voxels of ``grid``, of the Gaussian that makes a sharp map on ``grid`` look like this one.

    A voxel counts as a Gaussian with its width at half maximum, of which ``grid``'s own is taken away (as
    :func:`DEMISTCore.volume.resample` has it; Cardoso et al., MICCAI 2015); on the way to ``grid`` it was interpolated
    linearly.

    Args:
        affine: (4, 4), of the map's grid, RAS mm.
        motion: (4, 4) rigid motion, RAS mm, that takes the map to its place; None: it lies there.
        grid: where the map was brought to.

    Returns:
        None where the map is about as fine as the grid.
    """
    placed = np.asarray(affine, float) if motion is None else np.asarray(motion, float) @ affine
    step = np.linalg.inv(grid.affine)[:3, :3] @ placed[:3, :3]  # columns: the map's voxel in voxels of the grid
    size = np.linalg.norm(step, axis=0)
    if size.max() < _COARSER:
        return None
    own = np.maximum(size**2 - 1, 0) * _OF_FWHM + np.where(size > 1, size**2 * _OF_LINEAR, 0)
    directions = step / size
    return (directions * own) @ directions.T
