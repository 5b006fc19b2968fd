"""Pieces of a region that may count as observations: blocks of space, and patches of the size of lesions.

Neighbouring voxels of a PSR map repeat each other: the scanner's point spread, interpolation, and in a synthesized map
the network itself make them alike. Statistics that take every voxel for an observation of its own are far too sure.
Blocks and patches some millimetres across are closer to independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Tries to place one patch before it is given up.
_TRIES = 25


def blocks(where: tuple[np.ndarray, ...], spacing: Sequence[float], edge_mm: float) -> np.ndarray:
    """The number of the cube, ``edge_mm`` wide, that each voxel lies in; along the volume's own axes.

    Args:
        where: voxel indices as ``np.nonzero`` gives them, (n,) each.
        spacing: voxel size in mm.
        edge_mm: width of a cube. A voxel wider than that is a block of its own.

    >>> blocks((np.array([0, 9, 10]), np.zeros(3, int), np.zeros(3, int)), (1, 1, 1), 10.0).tolist()
    [0, 0, 1]
    """
    cubes = [np.floor(np.asarray(i) * s / max(edge_mm, s) + 1e-9).astype(np.int64) for i, s in zip(where, spacing)]
    if not cubes[0].size:
        return np.zeros(0, np.int64)
    sides = [int(c.max()) + 1 for c in cubes]
    return np.unique(np.ravel_multi_index(cubes, sides), return_inverse=True)[1].reshape(-1)


def matched_patches(
    mask: np.ndarray, sizes: Sequence[int] | np.ndarray, spacing: Sequence[float], *, per_size: int = 1, seed: int = 0
) -> list[np.ndarray]:
    """Compact patches of given numbers of voxels, cut out of ``mask`` without overlap.

    Each patch grows around a randomly drawn free voxel and takes the nearest free ones (Euclidean, mm), no farther away
    than twice the radius of a ball of its volume; 25 draws, then it is given up. Large ones are cut first. The same
    arguments give the same patches.

    Args:
        mask: where patches may lie, (X, Y, Z).
        sizes: voxels of the lesions to be matched.
        spacing: voxel size in mm.
        per_size: patches per lesion.
        seed: of the random draws.

    Returns:
        Flat indices into ``mask``, one array per patch that found room.
    """
    from scipy.spatial import cKDTree

    flat = np.flatnonzero(mask)
    if not flat.size:
        return []
    points = np.stack(np.unravel_index(flat, mask.shape), 1) * np.asarray(spacing, np.float64)
    tree = cKDTree(points)
    free = np.ones(flat.size, bool)
    left = flat.size
    voxel = float(np.prod(spacing))
    rng = np.random.default_rng(seed)
    patches = []
    for size in sorted((int(s) for s in sizes), reverse=True):
        reach = 2 * (3 * size * voxel / (4 * np.pi)) ** (1 / 3) + max(spacing)
        for _ in range(per_size):
            if size < 1 or left < size:
                break
            for _ in range(_TRIES):
                start = int(rng.integers(flat.size))
                if not free[start]:
                    continue
                near = np.array(tree.query_ball_point(points[start], reach))
                near = near[free[near]]
                if near.size < size:
                    continue
                away = ((points[near] - points[start]) ** 2).sum(1)
                taken = near[np.lexsort((near, away))[:size]]
                free[taken] = False
                left -= size
                patches.append(flat[taken])
                break
    return patches
