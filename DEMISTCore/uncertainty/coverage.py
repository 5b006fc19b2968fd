"""How often intervals hold the truth, on subjects that the calibration has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import draw
from .calibration import Calibration
from .case import Case, Sample, samples_of
from .fit import REGION_MEANS, region_variance

#: Classes of size in the tables.
_SIZE_NAMES = ("to 0.03 mL", "0.03 to 0.3 mL", "0.3 to 3 mL", "3 to 30 mL", "above 30 mL")
_MEAN_NAMES = ("to .03", ".03 to .09", "above .09")
_ERROR_STEPS = np.linspace(0, 0.95, 20)


def evaluate_calibration(calibration: Calibration, cases: Iterable[Case], seed: int = 0) -> dict[str, Any]:
    """Coverage of voxel and region intervals, one case in memory at a time.

    Args:
        calibration: what is to be judged.
        cases: subjects that it was not made from.
        seed: of what is drawn, voxels and regions.

    Returns:
        ``voxels`` and ``regions``: lists of rows with ``part`` (tissue; or kind and size of region), ``level``,
        ``coverage`` (mean over scans of their share), ``standard_error`` (from scan to scan), ``width`` (mean width,
        fraction), ``subjects`` (scans that have the part); ``spread``: by tissue the rank correlation of SD and |error|
        (Spearman) and ``ause``, the area under the sparsification error curve (Ilg et al., ECCV 2018): mean |error|
        of what is left when the most uncertain share is taken away, above what is left when the worst is, in units of
        the mean |error| of all (0: perfect order; about 0.5 to 0.8: the SD says nothing).

    Raises:
        ValueError: no case, or one that cannot be used.
    """
    return evaluate_samples(calibration, samples_of(cases, seed))


def evaluate_samples(calibration: Calibration, samples: Sequence[Sample]) -> dict[str, Any]:
    """As :func:`evaluate_calibration`, from what :func:`.case.samples_of` kept of the cases."""
    if not samples:
        raise ValueError("There is no case to judge a calibration on.")
    voxels: dict[tuple[str, float], list[tuple[float, float]]] = {}
    regions: dict[tuple[str, float], list[tuple[float, float]]] = {}
    spread: dict[str, list[tuple[float, float]]] = {}
    for kept in samples:
        sd = calibration.voxel_sd(kept.mean, kept.sd_local, kept.ood)
        truth = kept.mean - kept.error
        parts = {"all": np.ones(len(sd), bool)} | {n: np.isin(kept.label, c) for n, c in draw.TISSUES.items()}
        for index, level in enumerate(calibration.levels):
            low, high = calibration.voxel_interval(kept.mean, sd, level)
            # Clipping at 0 and rounding to float32 must not put a truth of exactly 0 outside.
            good = (truth >= low - 1e-7) & (truth <= high + 1e-7)
            for name, part in parts.items():
                if part.any():
                    told = np.average(good[part], weights=kept.weight[part])
                    width = np.average((high - low)[part], weights=kept.weight[part])
                    voxels.setdefault((name, level), []).append((float(told), float(width)))
            _regions(calibration, kept, index, regions)
        for name, part in parts.items():
            if part.sum() > 2:
                spread.setdefault(name, []).append(_order(sd[part], np.abs(kept.error[part]), kept.weight[part]))
    return {
        "voxels": _rows(voxels),
        "regions": _rows(regions),
        "spread": {
            name: dict(zip(("rank_correlation", "ause"), np.nanmean(np.array(told), 0).tolist()))
            for name, told in spread.items()
        },
    }


def _regions(calibration: Calibration, kept: Sample, index: int, into: dict[Any, list[tuple[float, float]]]) -> None:
    variance, level = region_variance(calibration, kept), calibration.levels[index]
    size = np.searchsorted(draw.SIZES_ML, kept.region_ml)
    for kind in np.unique(kept.region_kind):
        which = kept.region_kind == kind
        mean = kept.region_mean[which]
        half = calibration.region_half_width(index, mean, variance[which], kept.region_ml[which], kept.ood, str(kind))
        good = np.abs(kept.region_error[which]) <= half
        width = mean + half - np.maximum(mean - half, 0)
        parts = {str(kind): np.ones(len(good), bool)}
        parts |= {f"{kind}, {name}": size[which] == k for k, name in enumerate(_SIZE_NAMES)}
        if kind == "region":
            group = np.searchsorted(REGION_MEANS, mean)
            parts |= {f"region, mean {name}": group == k for k, name in enumerate(_MEAN_NAMES)}
        for name, part in parts.items():
            if part.any():
                into.setdefault((name, level), []).append((float(good[part].mean()), float(width[part].mean())))


def _rows(found: dict[Any, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    rows = []
    for (part, level), told in found.items():
        coverage, width = np.array(told).T
        error = float(coverage.std(ddof=1)) / math.sqrt(len(told)) if len(told) > 1 else math.nan
        rows.append(
            {
                "part": part,
                "level": level,
                "coverage": float(coverage.mean()),
                "standard_error": error,
                "width": float(width.mean()),
                "subjects": len(told),
            }
        )
    return rows


def _order(sd: np.ndarray, error: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation and AUSE; the voxels are drawn by weight, so that they stand for the brain."""
    from scipy import stats

    drawn = np.random.default_rng(0).choice(len(sd), min(len(sd), 20_000), p=weight / weight.sum())
    sd, error = sd[drawn], error[drawn]
    if not (np.ptp(sd) > 0 and np.ptp(error) > 0):
        return math.nan, math.nan
    left = [_left(error[np.argsort(by, kind="stable")]) for by in (sd, error)]
    return float(stats.spearmanr(sd, error).statistic), float(np.mean(left[0] - left[1]) / error.mean())


def _left(ordered: np.ndarray) -> np.ndarray:
    """Mean error of what is left when the last shares are taken away, one number a share."""
    kept = np.maximum(np.round((1 - _ERROR_STEPS) * len(ordered)).astype(int), 1)
    return np.cumsum(ordered)[kept - 1] / kept
