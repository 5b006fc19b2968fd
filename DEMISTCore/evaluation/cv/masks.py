"""Where a scan is measured: tissues, lesions, and white matter near to and far from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...regions.nawm import lesion_distance, split
from ...regions.settings import RegionSettings
from ...volume import Grid, Volume
from ..cases import LESION, WHITE

#: Labels of grey matter: cortex, deep grey nuclei, cerebellar cortex.
GREY = (2, 4, 6)
#: What lesions are told from, by the name of the columns; the keys are those of :data:`DEMISTCore.regions.REGIONS`.
AGAINST = {"nawm": "nawm", "proximal": "nawm_proximal", "distal": "nawm_distal"}
#: Voxels of each region that are kept of a scan for curves over all scans.
VOXELS = 2000


class MeasuredScan(Protocol):
    """What is measured of a scan: a :class:`..cases.Case`, or a pair of maps. Arrays are (X, Y, Z)."""

    @property
    def name(self) -> str:
        """Such as ``sub-01_ses-02``."""

    @property
    def grid(self) -> Grid:
        """Where maps are compared."""

    @property
    def truth(self) -> np.ndarray:
        """True PSR; 0 where it is unknown. (X, Y, Z), fraction."""

    @property
    def labels(self) -> np.ndarray:
        """Labels. (X, Y, Z), integers."""

    @property
    def brain(self) -> np.ndarray:
        """True brain. (X, Y, Z), bool."""

    @property
    def mask(self) -> np.ndarray:
        """The brain where PSR is known. (X, Y, Z), bool."""

    @property
    def lesions(self) -> np.ndarray:
        """Lesions where PSR is known. (X, Y, Z), bool."""

    @property
    def coverage(self) -> float:
        """Fraction of the brain's voxels in which PSR is known."""


@dataclass(frozen=True, eq=False)
class ScanMasks:
    """Masks (X, Y, Z; bool) of a scan on the grid of the comparison, where PSR is known.

    Attributes:
        groups: "brain", "white", "grey", "lesions": what errors are reported in.
        nawm: normal-appearing white matter: all ("nawm"), "proximal", "distal"; distances and depth as
            :class:`DEMISTCore.regions.settings.RegionSettings` has them. Without lesions all white matter is NAWM.
        drawn: flat indices of voxels for curves over all scans, by region.
    """

    groups: Mapping[str, np.ndarray]
    nawm: Mapping[str, np.ndarray]
    drawn: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, case: MeasuredScan, settings: RegionSettings | None = None) -> ScanMasks:
        """The masks of a case."""
        from scipy.ndimage import distance_transform_edt

        settings = settings or RegionSettings()
        labels, mask = case.labels, case.mask
        lesion = (labels == LESION) & case.brain  # those where PSR is unknown are lesions all the same
        matter = ((labels == WHITE) | lesion) & case.brain
        deep = matter
        if settings.depth_mm and not matter.all():
            depth = max(settings.depth_mm, min(case.grid.spacing))
            deep = distance_transform_edt(matter, sampling=case.grid.spacing) > depth
        distance = lesion_distance(Volume(lesion.astype(np.uint8), case.grid.affine))
        parts = split((labels == WHITE) & deep & mask, None if distance is None else distance.array, settings)
        nawm = {name: parts.get(key, np.zeros(mask.shape, bool)) for name, key in AGAINST.items()}
        groups = {
            "brain": mask,
            "white": (labels == WHITE) & mask,
            "grey": np.isin(labels, GREY) & mask,
            "lesions": case.lesions,
        }
        drawn = {name: _drawn(where, case.name, name) for name, where in {"lesion": case.lesions, **nawm}.items()}
        return cls(groups, nawm, drawn)

    @property
    def regions(self) -> dict[str, np.ndarray]:
        """Regions whose means are compared, by the name in the tables."""
        return {
            "lesion": self.groups["lesions"],
            "proximal NAWM": self.nawm["proximal"],
            "distal NAWM": self.nawm["distal"],
            "NAWM": self.nawm["nawm"],
            "white matter": self.groups["white"],
            "grey matter": self.groups["grey"],
        }


def _drawn(where: np.ndarray, scan: str, region: str) -> np.ndarray:
    """Up to :data:`VOXELS` voxels of a region; the same ones for every method, and in every run."""
    flat = np.flatnonzero(where)
    if flat.size <= VOXELS:
        return flat
    seed = int.from_bytes(hashlib.sha256(f"{scan} {region}".encode()).digest()[:8], "little")
    return np.sort(np.random.default_rng(seed).choice(flat, VOXELS, replace=False))
