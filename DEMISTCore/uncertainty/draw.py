"""Regions to calibrate intervals of means on: whole tissues, parts of them of all sizes, and lesions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..labels import CSF, GREY, LESION, WHITE, labels_of

#: Labels by tissue, lesions apart.
TISSUES = {"csf": labels_of(CSF), "grey": labels_of(GREY), "white": labels_of(WHITE), "lesion": (LESION,)}
#: Borders between classes of size, mL.
SIZES_ML = (0.03, 0.3, 3.0, 30.0)
#: Fewer voxels are no region.
LEAST_VOXELS = 5
_BLOBS_PER_SIZE = 8
_HALVES = 3
_MOST_LESIONS = 60


def regions(labels: np.ndarray, voxel_ml: float, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Kind (``"region"`` or ``"lesion"``) and flat indices of regions of all sizes.

    Whole CSF, grey and white matter, and what a random plane cuts off of each; compact blobs of each (the voxels
    nearest to a random one), eight for each class of size, of a volume drawn evenly in its logarithm; every single
    lesion of five voxels or more (60 at most), and all lesions together.

    Args:
        labels: (X, Y, Z) tissue codes as in :data:`TISSUES`, 0 outside.
        voxel_ml: volume of a voxel.
        rng: draws planes and blobs.
    """
    for name in ("csf", "grey", "white"):
        index = np.flatnonzero(np.isin(labels, TISSUES[name]))
        if index.size < LEAST_VOXELS:
            continue
        yield "region", index
        points = np.stack(np.unravel_index(index, labels.shape), 1).astype(np.float32)
        for _ in range(_HALVES):
            along = points @ rng.standard_normal(3).astype(np.float32)
            yield "region", index[along <= np.quantile(along, rng.uniform(0.15, 0.85))]
        for low, high in zip((LEAST_VOXELS * voxel_ml, *SIZES_ML), (*SIZES_ML, index.size * voxel_ml / 2)):
            high = min(high, index.size * voxel_ml / 2)
            for _ in range(_BLOBS_PER_SIZE if high > low else 0):
                count = max(round(np.exp(rng.uniform(np.log(low), np.log(high))) / voxel_ml), LEAST_VOXELS)
                away = ((points - points[rng.integers(index.size)]) ** 2).sum(1)
                yield "region", index[np.argpartition(away, count - 1)[:count]]
    yield from _lesions(labels, rng)


def _lesions(labels: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    from scipy import ndimage

    mask = np.isin(labels, TISSUES["lesion"])
    index = np.flatnonzero(mask)
    if index.size < LEAST_VOXELS:
        return
    yield "lesion", index
    numbers, count = ndimage.label(mask, np.ones((3, 3, 3)))
    number = numbers.ravel()[index]
    sizes = np.bincount(number, minlength=count + 1)
    large = np.flatnonzero(sizes >= LEAST_VOXELS)
    if large.size == 1 and index.size == sizes[large[0]]:
        return  # one lesion only: all of them are it
    for one in rng.permutation(large)[:_MOST_LESIONS]:
        yield "lesion", index[number == one]
