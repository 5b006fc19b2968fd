"""The words that methods share: what one is, what it gives, what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..calibrated import LEVELS, Intervals
from ..cases import Case

if TYPE_CHECKING:
    import torch

    from ...bundle import Bundle
    from ...training.data import Session


#: Kinds of regions whose means have intervals of their own.
REGION, LESION = "region", "lesion"


class Calibrated(Protocol):
    """What a calibration must be able to say; levels are probabilities, ends fractions of PSR."""

    def voxel_interval(self, mean: np.ndarray, sd: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends of voxels' intervals (X, Y, Z)."""

    def region_interval(
        self,
        mean_map: np.ndarray,
        sd_map: np.ndarray,
        mask: np.ndarray,
        voxel_ml: float,
        level: float,
        ood: float | None,
        kind: str,
    ) -> tuple[float, float]:
        """Ends of the interval of the mean over ``mask``; the maps may be indexed, (N,)."""


#: From a mask (X, Y, Z; bool), levels in percent and what it is: the ends of its mean's interval by level.
RegionInterval = Callable[[np.ndarray, Sequence[int], str], dict[int, tuple[float, float]]]


@dataclass(eq=False)
class Outcome:
    """A method's map and, where it says so, how sure it is.

    Attributes:
        psr: (X, Y, Z) on the comparison grid.
        deviation: (X, Y, Z), standard deviation of the error, or over seeds.
        seeds: over how many seeds ``deviation`` is; 1: it is a predicted one.
        intervals: ends (X, Y, Z) of voxels' intervals by level in percent; None: they follow from ``deviation``.
        region_interval: from a mask (X, Y, Z; bool), levels in percent and what it is (:data:`REGION`,
            :data:`LESION`), the interval (low, high) of the mean over the mask at each level.
        passes: forward passes of its network; None: it has none, or they were not counted.
    """

    psr: np.ndarray
    deviation: np.ndarray | None = None
    seeds: int = 1
    intervals: Intervals | None = None
    region_interval: RegionInterval | None = None
    passes: int | None = None

    @classmethod
    def calibrated(
        cls, psr: np.ndarray, deviation: np.ndarray, calibration: Calibrated, voxel_ml: float, ood: float | None = None
    ) -> Outcome:
        """A map whose error bars are a calibration's.

        Args:
            psr: (X, Y, Z) on the comparison grid.
            deviation: (X, Y, Z), its calibrated standard deviation there.
            calibration: gives the intervals.
            voxel_ml: volume of a voxel of the comparison grid.
            ood: how far the scans are from the training data, if known.
        """

        def region(mask: np.ndarray, levels: Sequence[int], kind: str) -> dict[int, tuple[float, float]]:
            values, deviations = psr[mask], deviation[mask]
            everywhere = np.ones(values.shape, bool)
            return {
                level: calibration.region_interval(
                    values, deviations, everywhere, voxel_ml, level=level / 100, ood=ood, kind=kind
                )
                for level in levels
            }

        ends = {level: calibration.voxel_interval(psr, deviation, level=level / 100) for level in LEVELS}
        return cls(psr, deviation, 1, ends, region)


@dataclass(eq=False)
class Method:
    """Something that makes one or several named maps of a case.

    Attributes:
        names: of the maps.
        settings: everything that decides the result besides the case: it goes into the fingerprint.
        make: maps by name.
        beside: the method that this one is with something taken away; None: it stands for itself.
        parameters: of all networks that run, by name of the map, where that is known.
    """

    names: tuple[str, ...]
    settings: dict[str, Any]
    make: Callable[[Case], dict[str, Outcome]]
    beside: str | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Context:
    """What methods are made from; see :func:`DEMISTCore.evaluation.evaluate` for the options.

    Attributes:
        cohorts: sessions of each data set that is evaluated, by its name in the tables.
        notes: sentences on how methods came about; methods add theirs.
    """

    model: Bundle
    cohorts: Mapping[str, Sequence[Session]]
    device: torch.device
    dtype: torch.dtype
    out: Path
    seeds: int = 4
    steps: int | None = None
    sampler: str | None = None
    ablations: bool = False
    knock_outs: bool = False
    compare: Mapping[str, str | Path] = field(default_factory=dict)
    regression_from: str | Path | None = None
    baselines: Sequence[str | Path] = ()
    lookup_from: str | Path | None = None
    linear: str | Path | None = None
    preprocess: str = "masked"
    already_aligned: bool | None = None
    progress: bool = False
    notes: list[str] = field(default_factory=list)
