"""Crops of a prepared session as no scanner saw them: turned, mirrored, stretched and bent, all images alike.

A few dozen anatomies are soon known by heart; a network that works locally does not need the head upright, and a brain
bent at random is another brain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..networks.filters import STRIDE
from .data import PreparedSession
from .groups import WarpSettings

_KNOTS = 16  # voxels between the knots of the bend


def draw(size: Sequence[int], settings: WarpSettings, rng: np.random.Generator) -> np.ndarray | None:
    """Where each voxel of a crop comes from, relative to the crop's centre, voxels, (3, *size); None: as it is.

    A share of the crops (``probability``) is warped: mirrored left-right half of the time, turned by about ``degrees``
    around each axis, stretched by about ``stretch`` along each, bent by about ``bend`` voxels; ``upend`` of these are
    also mirrored and turned into any of the 48 positions of a cube.
    """
    rng = np.random.default_rng(int(rng.integers(2**62)))  # whatever is drawn here moves no other draw
    if rng.random() >= settings.probability:
        return None
    matrix = np.diag([rng.choice((-1.0, 1.0)), 1.0, 1.0])
    if rng.random() < settings.upend:
        matrix = np.diag(rng.choice((-1.0, 1.0), 3))[rng.permutation(3)]
    if rng.random() < 0.5:  # half of them exactly on the grid: interpolation makes images smoother than scans are
        from scipy.spatial.transform import Rotation

        turn = Rotation.from_euler("xyz", rng.normal(0, settings.degrees, 3), degrees=True).as_matrix()
        matrix = turn @ np.diag(np.exp(rng.normal(0, settings.stretch, 3))) @ matrix
        bent = _bend(size, settings.bend, rng)
    else:
        bent = np.zeros(())
    axes = [np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in size]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    return np.tensordot(matrix.astype(np.float32), places, 1) + bent


def _bend(size: Sequence[int], most: float, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import zoom

    knots = [n // _KNOTS + 3 for n in size]
    coarse = rng.normal(0, most, (3, *knots)).astype(np.float32)
    fine = np.stack([zoom(one, _KNOTS, order=1, grid_mode=False) for one in coarse])
    start = [int(rng.integers(m - n + 1)) for m, n in zip(fine.shape[1:], size)]
    return fine[(slice(None), *(slice(s, s + n) for s, n in zip(start, size)))]


def wide_at(
    wide: np.ndarray, start: Sequence[int], size: Sequence[int], places: np.ndarray | None = None
) -> np.ndarray:
    """Wide features (C, x + 2, ...) of a volume (:func:`DEMISTCore.networks.filters.wide`) at a crop of it.

    ``places``: see :func:`draw`; None: the crop as it lies. Beyond the volume its outermost values go on.
    """
    from scipy.ndimage import map_coordinates

    if places is None:
        middle = (np.asarray(size, np.float32) - 1) / 2
        axes = [np.arange(-1, n // STRIDE + 1, dtype=np.float32) * STRIDE + (STRIDE - 1) / 2 for n in size]
        at = np.stack(np.meshgrid(*axes, indexing="ij")) - middle[:, None, None, None]
    else:
        blocks = places.reshape(3, *(part for n in size for part in (n // STRIDE, STRIDE))).mean((2, 4, 6))
        at = np.pad(blocks, [(0, 0), *((1, 1),) * 3], mode="reflect", reflect_type="odd")  # a straight line goes on
    centre = np.array([s + (n - 1) / 2 for s, n in zip(start, size)], np.float32)[:, None, None, None]
    index = (at + centre - (STRIDE - 1) / 2) / STRIDE + 1
    return np.stack([map_coordinates(one, index, order=1, mode="nearest") for one in wide]).astype(np.float32)


def read(entry: PreparedSession, start: Sequence[int], places: np.ndarray) -> dict[str, np.ndarray]:
    """x (2, X, Y, Z), y, labels and known (X, Y, Z) at ``places`` (:func:`draw`) about the crop beginning at ``start``.

    Images are interpolated linearly, labels and known take the nearest voxel; beyond the volume all is 0, and known.
    """
    from scipy.ndimage import map_coordinates

    size = places.shape[1:]
    at = places + np.array([s + (n - 1) / 2 for s, n in zip(start, size)], np.float32)[:, None, None, None]
    low = [max(int(np.floor(axis.min())), 0) for axis in at]
    high = [min(int(np.ceil(axis.max())) + 1, n) for axis, n in zip(at, entry.labels.shape)]
    low = [min(a, b - 1) for a, b in zip(low, high)]
    part = tuple(slice(a, max(b, a + 1)) for a, b in zip(low, high))
    at = at - np.array(low, np.float32)[:, None, None, None]

    def take(image: np.ndarray, order: int) -> np.ndarray:
        return map_coordinates(np.asarray(image[part], np.float32), at, order=order, mode="constant")

    labels = take(entry.labels, 0).astype(np.uint8)
    brain = labels > 0  # between brain and background there is nothing: masks stay sharp
    x = np.stack([take(channel, 1) for channel in entry.x])
    known = 1 - take(1 - np.asarray(entry.known), 0) if entry.is_partial else np.ones(size, np.float32)
    return {"x": np.where(brain, x, 0), "y": np.where(brain, take(entry.y, 1), 0), "labels": labels, "known": known}
