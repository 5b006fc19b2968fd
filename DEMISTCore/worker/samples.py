"""Maps of single seeds, kept for the statistics: how far a region's mean moves from seed to seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..devices import available_memory
from ..volume import Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..volume import Grid

#: Bytes that all kept maps may take together: brains of 1.5 million voxels, 16 seeds, ten times over.
BUDGET = 1 << 30
#: Share of the free memory that whole maps of all seeds may take while they are made or used.
_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class _Kept:
    """The seeds of one run: ``values`` (seeds, n) float32 at the flat indices ``where`` (n,), 0 elsewhere."""

    grid: Grid
    where: np.ndarray
    values: np.ndarray

    @property
    def bytes(self) -> int:
        return self.where.nbytes + self.values.nbytes


class Samples:
    """The single maps of the last runs, found again by the content of their mean.

    By content, not by name: a map that was smoothed or cut since then has other statistics than its seeds.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}  # the newest last

    @staticmethod
    def affordable(seeds: int, shape: Sequence[int]) -> bool:
        """Whether whole maps of all seeds fit into memory; fewer than two tell nothing."""
        return seeds > 1 and 4 * seeds * int(np.prod(shape)) <= _SHARE * available_memory()

    def keep(self, mean: Volume, samples: Sequence[Volume]) -> None:
        """Keep the maps that ``mean`` is the mean of; older ones go where there are too many.

        Args:
            mean: float32 (X, Y, Z).
            samples: maps on its grid, two or more.
        """
        inside = np.zeros(mean.shape, bool)
        for sample in samples:
            inside |= sample.array != 0
        where = np.flatnonzero(inside)
        values = np.stack([sample.array.ravel()[where] for sample in samples]).astype(np.float32, copy=False)
        key = _content(mean)
        self._kept.pop(key, None)
        self._kept[key] = _Kept(mean.grid, where, values)
        while sum(kept.bytes for kept in self._kept.values()) > BUDGET:
            del self._kept[next(iter(self._kept))]

    def of(self, psr: Volume) -> list[Volume]:
        """The maps of single seeds that ``psr`` is the mean of; none if they are not kept, or do not fit into memory.

        Args:
            psr: float32 (X, Y, Z), on the grid where it was synthesized.
        """
        kept = self._kept.get(_content(psr))
        if kept is None or not kept.grid.same_as(psr.grid) or not self.affordable(len(kept.values), psr.shape):
            return []
        maps = []
        for values in kept.values:
            array = np.zeros(psr.shape, np.float32)
            array.reshape(-1)[kept.where] = values
            maps.append(psr.with_array(array))
        return maps


def _content(volume: Volume) -> str:
    """Hash of the voxels alone: on its way through Slicer, an affine is rounded."""
    digest = hashlib.sha256(repr(volume.shape).encode())
    digest.update(np.ascontiguousarray(volume.array, np.float32).data)
    return digest.hexdigest()
