"""Do error bars hold: coverage and width of intervals, and whether a standard deviation tells where the errors are.

On plain arrays, so that any source of an uncertainty can be judged: a spread over seeds, a predicted and calibrated
one. PSR, deviations and interval ends are fractions; levels are percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

#: Percent of cases that intervals should hold.
LEVELS = (50, 80, 90, 95)

#: Lower and upper ends by level.
Intervals = Mapping[int, tuple[np.ndarray, np.ndarray]]


def normal_intervals(mean: np.ndarray, deviation: np.ndarray, levels: Sequence[int] = LEVELS) -> Intervals:
    """Intervals around ``mean`` if the error is normal with this standard deviation; arrays of one shape."""
    from scipy.stats import norm

    return {level: _around(mean, norm.ppf(0.5 + level / 200) * np.asarray(deviation)) for level in levels}


def student_intervals(mean: np.ndarray, deviation: np.ndarray, seeds: int, levels: Sequence[int] = LEVELS) -> Intervals:
    """Prediction intervals that ``seeds`` samples give: mean -+ t(n - 1) SD sqrt(1 + 1/n); arrays of one shape.

    They hold if the truth is one more draw from the normal distribution of which the samples are draws.

    Raises:
        ValueError: fewer than two seeds have no deviation.
    """
    from scipy.stats import t

    if seeds < 2:
        raise ValueError("Intervals from seeds need two seeds or more.")
    spread = math.sqrt(1 + 1 / seeds) * np.asarray(deviation)
    return {level: _around(mean, t.ppf(0.5 + level / 200, seeds - 1) * spread) for level in levels}


def coverage(truth: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Share of ``truth`` (any shape) from ``low`` to ``high``; NaN if there is none."""
    truth = np.asarray(truth)
    return float(np.mean((low <= truth) & (truth <= high))) if truth.size else math.nan


def _around(mean: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(mean) - half, np.asarray(mean) + half


def rank_correlation(deviation: np.ndarray, error: np.ndarray) -> float:
    """Spearman correlation of a deviation with |error|; NaN where one of them does not vary.

    Both (n,), PSR as fraction.
    """
    from scipy.stats import spearmanr

    deviation, error = np.ravel(deviation), np.abs(np.ravel(error))
    if error.size < 2 or np.ptp(deviation) == 0 or np.ptp(error) == 0:
        return math.nan
    return float(spearmanr(deviation, error).statistic)


def ause(deviation: np.ndarray, error: np.ndarray) -> float:
    """Area under the sparsification error curve (Ilg et al., ECCV 2018), by mean absolute error.

    Both (n,), PSR as fraction.

    Voxels are removed from the most to the least uncertain, and the mean |error| of those that are left, over that of
    all, is the sparsification curve; removing by |error| itself gives the lowest curve there is. This is the area
    between the two: 0 if the deviation ranks errors perfectly. A deviation that says nothing (constant: every order is
    as likely) gives 1 minus the area under the lowest curve. NaN without voxels or errors.
    """
    deviation, error = np.ravel(np.asarray(deviation, np.float64)), np.abs(np.ravel(np.asarray(error, np.float64)))
    if not error.size or not error.any():
        return math.nan
    order = np.argsort(deviation, kind="stable")
    ranked = error[order]
    # Equal deviations come in no order: each such voxel counts with the mean error of its group.
    starts = np.flatnonzero(np.r_[True, np.diff(deviation[order]) > 0])
    sizes = np.diff(np.r_[starts, error.size])
    ranked = np.repeat(np.add.reduceat(ranked, starts) / sizes, sizes)
    kept = np.arange(1, error.size + 1)
    curve, lowest = (np.cumsum(values) / kept for values in (ranked, np.sort(error)))
    return float(np.mean(curve - lowest) / error.mean())


def voxel_calibration(
    mean: np.ndarray,
    deviation: np.ndarray,
    truth: np.ndarray,
    groups: Mapping[str, np.ndarray],
    intervals: Intervals | None = None,
) -> list[dict[str, float | int | str]]:
    """One row per group of voxels (a tissue, lesions, the brain): do its voxels lie inside their intervals?

    Args:
        mean, deviation, truth: (X, Y, Z).
        groups: masks (X, Y, Z) by name; empty ones are left out.
        intervals: (X, Y, Z) ends by level; None: normal ones of ``deviation``.

    Returns:
        Rows with ``group``, ``voxels``, ``coverage_50`` and so on (shares), ``width_50`` and so on (mean full width),
        ``spearman`` (of deviation and |error|), ``ause``, ``spread_skill`` (root mean square deviation over error; 1 is
        calibrated, below 1 overconfident).
    """
    rows: list[dict[str, float | int | str]] = []
    for name, group in groups.items():
        here = np.asarray(group) > 0
        if not here.any():
            continue
        middle, true, spread = (np.asarray(array, np.float64)[here] for array in (mean, truth, deviation))
        error = middle - true
        ends = (
            normal_intervals(middle, spread)
            if intervals is None
            else {level: (low[here], high[here]) for level, (low, high) in intervals.items()}
        )
        rmse = math.sqrt(float(np.mean(error**2)))
        rows.append(
            {
                "group": name,
                "voxels": int(error.size),
                **{f"coverage_{level}": coverage(true, *pair) for level, pair in ends.items()},
                **{f"width_{level}": float(np.mean(high - low)) for level, (low, high) in ends.items()},
                "spearman": rank_correlation(spread, error),
                "ause": ause(spread, error),
                "spread_skill": math.sqrt(float(np.mean(spread**2))) / rmse if rmse > 0 else math.nan,
            }
        )
    return rows


def region_calibration(
    rows: Iterable[Mapping[str, float | str]], levels: Sequence[int] = LEVELS
) -> list[dict[str, float | int | str]]:
    """Do region means lie inside their intervals: one row per kind of region, over all subjects.

    Args:
        rows: one per region and subject: ``kind`` (such as "White matter" or "single lesion"), ``estimate``, ``truth``,
            and for each level ``low_90`` and ``high_90``.

    Returns:
        Rows with ``group``, ``regions`` (how many), coverage and mean width by level, ``spearman`` (of the width at the
        last level with |error|), and ``rms_error``.
    """
    kinds: dict[str, list[Mapping[str, float | str]]] = {}
    for row in rows:
        kinds.setdefault(str(row["kind"]), []).append(row)
    result: list[dict[str, float | int | str]] = []
    for kind, members in kinds.items():
        columns = {
            key: np.array([m[key] for m in members], np.float64)
            for key in members[0]
            if key != "kind" and not isinstance(members[0][key], str)
        }
        truth, error = columns["truth"], columns["estimate"] - columns["truth"]
        held, width = {}, {}
        for level in levels:
            low, high = columns[f"low_{level}"], columns[f"high_{level}"]
            held[f"coverage_{level}"] = float(np.mean((low <= truth) & (truth <= high)))
            width[f"width_{level}"] = float(np.mean(high - low))
        last = columns[f"high_{levels[-1]}"] - columns[f"low_{levels[-1]}"]
        result.append(
            {
                "group": kind,
                "regions": len(members),
                **held,
                **width,
                "spearman": rank_correlation(last, error),
                "rms_error": math.sqrt(float(np.mean(error**2))),
            }
        )
    return result
