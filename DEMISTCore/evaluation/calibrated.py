"""Do error bars hold: coverage and width of intervals, and whether a standard deviation tells where the errors are.

On plain arrays, so that any source of an uncertainty can be judged: a spread over seeds, a predicted and calibrated
one. PSR, deviations and widths are fractions. A *half-width* is half of a symmetric interval around the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

#: Percent of cases that intervals should hold.
LEVELS = (50, 80, 90, 95)


def normal_half_widths(deviation: np.ndarray, levels: Sequence[int] = LEVELS) -> dict[int, np.ndarray]:
    """Half-widths of normal intervals by level, if the error is normal with this standard deviation."""
    from scipy.stats import norm

    return {level: norm.ppf(0.5 + level / 200) * np.asarray(deviation) for level in levels}


def student_half_widths(deviation: np.ndarray, seeds: int, levels: Sequence[int] = LEVELS) -> dict[int, np.ndarray]:
    """Half-widths of prediction intervals that ``seeds`` samples give: t(n - 1) SD sqrt(1 + 1/n).

    They hold if the truth is one more draw from the normal distribution of which the samples are draws.

    Raises:
        ValueError: fewer than two seeds have no deviation.
    """
    from scipy.stats import t

    if seeds < 2:
        raise ValueError("Intervals from seeds need two seeds or more.")
    wider = math.sqrt(1 + 1 / seeds)
    return {level: t.ppf(0.5 + level / 200, seeds - 1) * wider * np.asarray(deviation) for level in levels}


def coverage(error: np.ndarray, half_width: np.ndarray) -> float:
    """Share of ``error`` (any shape) no larger than its half-width; NaN if there is none."""
    error = np.abs(np.ravel(error))
    return float(np.mean(error <= np.ravel(half_width))) if error.size else math.nan


def rank_correlation(deviation: np.ndarray, error: np.ndarray) -> float:
    """Spearman correlation of a deviation with |error|; NaN where one of them does not vary."""
    from scipy.stats import spearmanr

    deviation, error = np.ravel(deviation), np.abs(np.ravel(error))
    if error.size < 2 or np.ptp(deviation) == 0 or np.ptp(error) == 0:
        return math.nan
    return float(spearmanr(deviation, error).statistic)


def ause(deviation: np.ndarray, error: np.ndarray) -> float:
    """Area under the sparsification error curve (Ilg et al., ECCV 2018), by mean absolute error.

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
    half_widths: Mapping[int, np.ndarray] | None = None,
) -> list[dict[str, float | int | str]]:
    """One row per group of voxels (a tissue, lesions, the brain): do its voxels lie inside their intervals?

    Args:
        mean, deviation, truth: (X, Y, Z).
        groups: masks (X, Y, Z) by name; empty ones are left out.
        half_widths: (X, Y, Z) by level in percent; None: normal intervals of ``deviation``.

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
        error = np.asarray(mean, np.float64)[here] - np.asarray(truth, np.float64)[here]
        spread = np.asarray(deviation, np.float64)[here]
        widths = (
            normal_half_widths(spread) if half_widths is None else {k: w[here] for k, w in half_widths.items()}
        )  # fmt: skip
        rmse = math.sqrt(float(np.mean(error**2)))
        rows.append({
            "group": name,
            "voxels": int(error.size),
            **{f"coverage_{level}": coverage(error, width) for level, width in widths.items()},
            **{f"width_{level}": float(2 * np.mean(width)) for level, width in widths.items()},
            "spearman": rank_correlation(spread, error),
            "ause": ause(spread, error),
            "spread_skill": math.sqrt(float(np.mean(spread**2))) / rmse if rmse > 0 else math.nan,
        })  # fmt: skip
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
        columns = {key: np.array([m[key] for m in members], np.float64) for key in members[0] if key != "kind"
                   and not isinstance(members[0][key], str)}  # fmt: skip
        truth, error = columns["truth"], columns["estimate"] - columns["truth"]
        held, width = {}, {}
        for level in levels:
            low, high = columns[f"low_{level}"], columns[f"high_{level}"]
            held[f"coverage_{level}"] = float(np.mean((low <= truth) & (truth <= high)))
            width[f"width_{level}"] = float(np.mean(high - low))
        last = columns[f"high_{levels[-1]}"] - columns[f"low_{levels[-1]}"]
        result.append({
            "group": kind, "regions": len(members), **held, **width, "spearman": rank_correlation(last, error),
            "rms_error": math.sqrt(float(np.mean(error**2))),
        })  # fmt: skip
    return result
