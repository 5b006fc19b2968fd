"""White matter without holes and islands."""

from __future__ import annotations

import numpy as np

from ..labels import CSF, WHITE
from ..volume import Volume

#: Anything smaller than this (mL) that white matter and lesions enclose is a hole in it.
_HOLE_ML = 0.05
#: Detached white matter smaller than this share of the largest piece is none: bone marrow, fat, eyes in a brain mask
#: that reaches too far. Cerebellar white matter, if a thin brainstem should not connect it, has more.
_ISLAND = 0.02


def fill_white(tissue: Volume, lesions: np.ndarray) -> Volume:
    """Lesions, and pockets of other tissue under 0.05 mL that white matter and lesions enclose, become white matter.

    ``lesions`` (X, Y, Z), on the grid of ``tissue``.
    """
    from scipy.ndimage import label

    white = (tissue.array == WHITE) | (lesions & (tissue.array > 0))
    pieces, count = label(~white)
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        small = sizes * tissue.grid.voxel_volume_ml < _HOLE_ML
        # What touches the border of the image is not enclosed.
        for axis in range(3):
            for end in (0, -1):
                small[np.unique(np.take(pieces, end, axis))] = False
        small[0] = False
        white |= small[pieces] & (tissue.array > 0)
    return tissue.with_array(np.where(white, np.uint8(WHITE), tissue.array).astype(np.uint8))


def drop_islands(tissue: np.ndarray) -> np.ndarray:
    """Labels (X, Y, Z) in which small pieces of white matter that lie detached are CSF, as all is beyond the brain."""
    from scipy.ndimage import label

    white = tissue == WHITE
    pieces, count = label(white)
    if count < 2:
        return tissue
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.where(white & (sizes[pieces] < _ISLAND * sizes.max()), tissue.dtype.type(CSF), tissue)
