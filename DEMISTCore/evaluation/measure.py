"""All numbers of one map of one case."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import metrics
from .calibrated import LEVELS, student_intervals, voxel_calibration
from .cases import Case
from .methods.method import LESION, REGION, Outcome, RegionInterval
from .split import error_split

#: Regions whose mean is reported in percent of the truth.
_MEANS = {"white_error_percent": "White matter", "grey_error_percent": "Cortex"}
SINGLE_LESION = "single lesion"


def measure(case: Case, outcome: Outcome) -> dict[str, Any]:
    """A row of the tables; lists in it are rows of tables of their own.

    :func:`DEMISTCore.metrics.compare`, lesions, where the error comes from (:mod:`.split`); ``regions``; where the
    method says how sure it is, ``calibration`` by tissue and ``intervals`` of region means.
    """
    from ..labels import NAMES as DSEG_NAMES

    psr, truth, mask = outcome.psr, case.truth, case.mask
    row: dict[str, Any] = metrics.compare(psr, truth, mask)
    row["coverage"] = case.coverage
    row["lesion_auc"] = metrics.roc_area(psr[case.lesions], psr[case.distant_white])
    row["psnr_near_lesions"] = metrics.psnr(psr, truth, case.near_lesions) if case.near_lesions.any() else math.nan
    row |= error_split(psr, truth, case.tissues, mask, case.borders)
    row["regions"] = metrics.regions(psr, truth, case.tissues, DSEG_NAMES, case.grid.voxel_volume_ml)
    bias = {region["region"]: region["bias_percent"] for region in row["regions"]}
    row |= {key: bias.get(name, math.nan) for key, name in _MEANS.items()}
    if outcome.deviation is not None:
        names = {name: case.tissues == label for label, name in DSEG_NAMES.items() if label}
        intervals = outcome.intervals
        if intervals is None and outcome.seeds > 1:
            intervals = student_intervals(psr, outcome.deviation, outcome.seeds)
        groups = {"brain": mask, **names}
        row["calibration"] = voxel_calibration(psr, outcome.deviation, truth, groups, intervals)
        row |= {key: value for key, value in row["calibration"][0].items() if key not in ("group", "voxels")}
    if outcome.region_interval is not None:
        row["intervals"] = _intervals(case, outcome.psr, outcome.region_interval, DSEG_NAMES)
    return row


def _intervals(case: Case, psr: np.ndarray, interval: RegionInterval, names: dict[int, str]) -> list[dict[str, Any]]:
    """Each tissue's and each single lesion's mean, with its intervals."""
    from ..labels import LESION as DSEG_LESION

    regions = [(name, name, case.tissues == label) for label, name in names.items() if label]
    count = int(case.single_lesions.max())
    regions += [(SINGLE_LESION, f"lesion {k}", case.single_lesions == k) for k in range(1, count + 1)]
    rows = []
    for kind, name, region in regions:
        if not region.any():
            continue
        of_lesion = kind in (SINGLE_LESION, names[DSEG_LESION])
        ends = interval(region, LEVELS, LESION if of_lesion else REGION)
        rows.append(
            {
                "kind": kind,
                "region": name,
                "voxels": int(np.count_nonzero(region)),
                "estimate": float(psr[region].mean(dtype=np.float64)),
                "truth": float(case.truth[region].mean(dtype=np.float64)),
                **{
                    f"{end}_{level}": float(value)
                    for level, pair in ends.items()
                    for end, value in zip(("low", "high"), pair)
                },
            }
        )
    return rows
