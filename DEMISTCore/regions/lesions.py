"""Connected lesions, numbered; and which of them are T1 black holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..labels import GREY, WHITE
from ..volume import Volume

SUGGESTION = "Lesions are a suggestion from FLAIR hyperintensity, not drawn or checked by a person."
DRAWN = "Lesions are those of the mask given."


@dataclass(frozen=True, eq=False)
class Lesions:
    """Lesions of one brain.

    Attributes:
        numbers: int32 (X, Y, Z): 0 none, 1 to n connected lesions, the largest first.
        suggested: found on the FLAIR, not drawn by a person.
        black_holes: numbers of lesions that are T1 black holes; empty without a T1w.
    """

    numbers: Volume
    suggested: bool = False
    black_holes: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many lesions there are."""
        return int(self.numbers.array.max(initial=0))

    @property
    def mask(self) -> Volume:
        """All lesions, uint8."""
        return self.numbers.with_array((self.numbers.array > 0).astype(np.uint8))

    @property
    def black_hole_mask(self) -> Volume:
        """Lesions that are T1 black holes, uint8."""
        return self.numbers.with_array(np.isin(self.numbers.array, self.black_holes).astype(np.uint8))

    @property
    def note(self) -> str:
        """Where the lesions come from, for every output."""
        return SUGGESTION if self.suggested else DRAWN


def number_lesions(mask: Volume, min_ml: float = 0.0) -> Volume:
    """Number connected lesions, largest first; voxels that share a face, an edge or a corner are connected (26).

    Lesions of equal size are numbered in the order of their first voxel in world coordinates (left to right, back to
    front, bottom to top), so that numbers do not hang on the orientation the file is stored in.

    Args:
        mask: lesions, > 0 inside.
        min_ml: smaller lesions are left out.

    Returns:
        int32 (X, Y, Z), 0 outside.
    """
    from scipy.ndimage import label

    pieces, count = label(mask.array > 0, np.ones((3, 3, 3), bool))
    if not count:
        return mask.with_array(np.zeros(mask.shape, np.int32))
    where = np.argwhere(pieces)
    of = pieces[tuple(where.T)]
    sizes = np.bincount(of, minlength=count + 1)[1:]
    # First voxels in an order that is the image's own in RAS, whatever the storage.
    world = np.round(mask.grid.to_world(where), 3)
    first = np.empty(count, np.int64)
    order = np.lexsort(world.T)
    _, position = np.unique(of[order], return_index=True)
    first[:] = position
    ranked = sorted(range(count), key=lambda i: (-sizes[i], first[i]))
    # A hair of tolerance: 10 voxels of 0.001 mL are 0.01 mL.
    ranked = [i for i in ranked if sizes[i] * mask.grid.voxel_volume_ml >= min_ml * (1 - 1e-6)]
    table = np.zeros(count + 1, np.int32)
    for number, i in enumerate(ranked, start=1):
        table[i + 1] = number
    return mask.with_array(table[pieces])


def black_holes(numbers: Volume, t1w: Volume, tissue: Volume) -> tuple[int, ...]:
    """Numbers of the lesions whose mean T1w lies below the median of the grey matter, lesions excluded.

    The three volumes lie on one grid; the T1w should be free of bias (as
    :func:`DEMISTCore.preprocess.prepare` leaves it). None, if there is no grey matter to compare with, or if white
    matter is not the brighter tissue: then it is no T1w.
    """
    from scipy.ndimage import mean

    outside = numbers.array == 0
    grey = t1w.array[(tissue.array == GREY) & outside]
    white = t1w.array[(tissue.array == WHITE) & outside]
    count = int(numbers.array.max(initial=0))
    if not count or not grey.size or not white.size or np.median(white) <= np.median(grey):
        return ()
    every = np.arange(1, count + 1)
    with np.errstate(invalid="ignore"):  # a lesion too small to have a voxel here: NaN, and no black hole
        means = mean(t1w.array, numbers.array, every)
    return tuple(int(n) for n in every[np.asarray(means) < np.median(grey)])
