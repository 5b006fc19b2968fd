"""Intervals of region means, where the map's sidecar carries its model's calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..schema import finite, shown
from ..uncertainty import Calibration
from ..volume import Volume

#: Probability of the intervals in the table; its columns are called after it.
LEVEL = 0.9
#: Regions that are calibrated as lesions, not as parts of tissues.
_LESIONS = ("lesion", "black_hole")

NO_CALIBRATION = (
    "The map was made without a calibration (its bundle has none, or it is one of samples): intervals are absent "
    "(columns mean_ci90_low and mean_ci90_high are empty)."
)
NO_MAP = (
    "The map's model is calibrated, but its uncertainty map was not given and does not lie beside it: intervals are "
    "absent; synthesize with --uncertainty, and give that map."
)


@dataclass(frozen=True, eq=False)
class Intervals:
    """What is needed beside the two maps: the model's calibration, and the scans' distance from its training data."""

    calibration: Calibration
    ood: float | None = None

    def of(self, row: Mapping[str, Any], mean: np.ndarray, sd: np.ndarray, voxel_ml: float) -> tuple[float, float]:
        """The 90 % interval of a region's mean; NaN without finite values.

        Args:
            row: its ``region``, which tells lesions from the rest.
            mean, sd: (N,) PSR and calibrated SD of its voxels, fraction.
            voxel_ml: volume of a voxel.
        """
        kind = "lesion" if row["region"] in _LESIONS else "region"
        return self.calibration.region_interval(mean, sd, np.ones(len(mean)), voxel_ml, LEVEL, self.ood, kind)

    def summary(self) -> dict[str, Any]:
        """For statistics.json."""
        return {
            "level": LEVEL,
            "calibration_subjects": self.calibration.subjects,
            "ood": self.ood,
            "widened": self.calibration.widening(self.ood),
        }


def find(told: Mapping[str, Any] | None) -> tuple[Intervals | None, str | None]:
    """The calibration in a synthesis' provenance, else why there is none (None for maps that nobody synthesized).

    Args:
        told: the provenance, as in the sidecar: ``uncertainty`` holds ``calibration`` and ``ood``.
    """
    if told is None:
        return None, None
    given = told.get("uncertainty")
    if not isinstance(given, Mapping) or given.get("calibration") is None:
        return None, NO_CALIBRATION
    try:
        calibration = Calibration.from_dict(given["calibration"])
        if not any(abs(level - LEVEL) < 1e-6 for level in calibration.levels):
            raise ValueError("It knows no 90 % interval.")
        return Intervals(calibration, _distance(given.get("ood"))), None
    except ValueError as error:
        return None, f"The calibration in the map's sidecar cannot be used, so intervals are absent: {error}"


def uncertainty_beside(psr: Volume, told: Mapping[str, Any]) -> Path | None:
    """The uncertainty map beside a PSR map's file: by the name that the sidecar gives it, or ``psr_uncertainty``."""
    if psr.path is None:
        return None
    path = Path(psr.path)
    outputs = told.get("outputs")
    named = outputs.get("uncertainty") if isinstance(outputs, Mapping) else None
    suffix = ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
    usual = path.name[: len(path.name) - len(suffix)] + "_uncertainty" + path.name[len(path.name) - len(suffix) :]
    for name in (Path(named).name if isinstance(named, str) and named else usual, usual):
        if path.with_name(name).is_file():
            return path.with_name(name)
    return None


def _distance(value: Any) -> float | None:
    if value is None:
        return None
    if not finite(value) or value < 0:
        raise ValueError(
            f"The distance from the training data (ood) must be a number of at least 0, not {shown(value)}."
        )
    return float(value)
