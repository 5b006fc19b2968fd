"""All numbers of one map of one scan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import metrics
from ..calibrated import coverage, normal_intervals
from ..methods.method import Outcome
from ..split import scale_error_percent
from .masks import AGAINST, MeasuredScan, ScanMasks

#: Errors that are reported in every group of voxels: key, heading, factor, digits, 1 if more is better.
ERRORS = (
    ("psnr", "PSNR (dB)", 1, 2, 1),
    ("ssim", "SSIM", 1, 4, 1),
    ("mse", "MSE (1e-4)", 1e4, 3, -1),
    ("mae", "MAE (1e-3)", 1e3, 2, -1),
    ("nmse", "NMSE", 1, 4, -1),
)
GROUPS = ("brain", "white", "grey", "lesions")
#: Percent of voxels that an interval of a method that gives one should hold.
LEVEL = 90


def numbers(case: MeasuredScan, masks: ScanMasks, outcome: Outcome) -> dict[str, Any]:
    """One row: errors in every group of voxels, sharpness, biases of region means, lesion AUCs, coverage.

    ``auc_distal`` is that of the map, ``truth_auc_distal`` that of the truth, ``auc_distal_difference`` the first minus
    the second; likewise ``nawm`` and ``proximal``. ``coverage``: share of the brain whose PSR is known.
    ``interval_coverage``: share of voxels in the method's 90 % intervals. What a scan does not have is NaN.
    """
    psr, truth, mask = outcome.psr, case.truth, case.mask
    similar = metrics.ssim_map(psr, truth, mask)
    row: dict[str, Any] = {}
    for name in GROUPS:
        where = masks.groups[name]
        there = bool(where.any())
        for key, measure in (
            ("psnr", metrics.psnr),
            ("mse", metrics.mse),
            ("mae", metrics.mae),
            ("nmse", metrics.nmse),
        ):
            row[f"{key}_{name}"] = measure(psr, truth, where) if there else math.nan
        row[f"ssim_{name}"] = float(similar[where].mean()) if there else math.nan
    row["sharpness"] = metrics.sharpness(psr, truth, mask)
    row["sharpness_error"] = abs(row["sharpness"] - 1)
    row["scale_error_percent"] = scale_error_percent(psr, truth, mask)
    for region in region_rows(case, masks, outcome):
        row[f"bias_{region['region'].replace(' ', '_')}"] = region["bias"]
    lesions = masks.groups["lesions"]
    for name in AGAINST:
        nawm = masks.nawm[name]
        row[f"truth_auc_{name}"] = metrics.roc_area(truth[lesions], truth[nawm])
        row[f"auc_{name}"] = metrics.roc_area(psr[lesions], psr[nawm])
        row[f"auc_{name}_difference"] = row[f"auc_{name}"] - row[f"truth_auc_{name}"]
        row[f"auc_{name}_error"] = abs(row[f"auc_{name}_difference"])
    row["coverage"] = case.coverage
    row["interval_coverage"] = _coverage(outcome, truth, mask)
    return row


def region_rows(case: MeasuredScan, masks: ScanMasks, outcome: Outcome) -> list[dict[str, Any]]:
    """True and synthesized mean of every region that the scan has, and the difference (fraction)."""
    rows = []
    for name, where in masks.regions.items():
        if not where.any():
            continue
        made = float(outcome.psr[where].mean(dtype=np.float64))
        true = float(case.truth[where].mean(dtype=np.float64))
        rows.append(
            {
                "region": name,
                "voxels": int(np.count_nonzero(where)),
                "truth": true,
                "synthesized": made,
                "bias": made - true,
            }
        )
    return rows


def _coverage(outcome: Outcome, truth: np.ndarray, mask: np.ndarray) -> float:
    if outcome.deviation is None:
        return math.nan
    ends = outcome.intervals
    if ends is None:
        ends = normal_intervals(outcome.psr, outcome.deviation, [LEVEL])
    low, high = ends[LEVEL]
    return coverage(truth[mask], low[mask], high[mask])
