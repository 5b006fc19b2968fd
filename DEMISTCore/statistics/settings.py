"""What may be chosen in an analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..regions import RegionSettings


@dataclass(frozen=True)
class MeasureSettings:
    """What may be chosen.

    Attributes:
        regions: how regions are made; None: the defaults of :class:`DEMISTCore.regions.RegionSettings`.
        block_mm: edge of the blocks of space that count as independent observations at the voxel level.
        patches_per_lesion: patches of NAWM cut for each lesion, for the lesion-level curves.
    """

    regions: RegionSettings | None = None
    block_mm: float = 20.0
    patches_per_lesion: int = 3

    def __post_init__(self) -> None:
        if not self.block_mm > 0:
            raise InputError(f"The edge of the blocks must be above 0 mm, not {self.block_mm}.")
        if self.patches_per_lesion < 1:
            raise InputError(f"There must be at least one patch per lesion, not {self.patches_per_lesion}.")
