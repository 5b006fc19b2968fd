"""Means over folds, and whether two methods differ: Wilcoxon's signed rank test over subjects, Holm's correction.

Scans of one person are not independent: they are averaged first, and persons are what is counted. F. Wilcoxon,
Biometrics Bulletin 1:80 (1945), as :func:`scipy.stats.wilcoxon` has it; S. Holm, Scand J Stat 6:65 (1979), as
:func:`statsmodels.stats.multitest.multipletests` has it, over all comparisons of one measure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .masks import AGAINST
from .numbers import ERRORS, GROUPS
from .recipes import OURS

if TYPE_CHECKING:
    import pandas as pd

#: Fewer pairs than this cannot reach p < 0.05 in a two-sided signed rank test: 2 / 2^6 is the first below.
LEAST_PAIRS = 6
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class Measure:
    """A column that methods are compared by: heading, factor, digits, 1 if more is better and -1 if less is."""

    key: str
    title: str
    factor: float
    digits: int
    better: int


#: The main table: errors over the brain, sharpness as its distance from 1, and lesions' AUC as its distance from the
#: truth's.
MAIN = (
    *(Measure(f"{key}_brain", title, factor, digits, better) for key, title, factor, digits, better in ERRORS),
    Measure("sharpness_error", "|sharpness - 1|", 1, 3, -1),
    *(Measure(f"auc_{name}_error", f"|AUC error|, {name}", 1, 3, -1) for name in ("proximal", "distal")),
)
#: All that is tested.
MEASURES = (
    *MAIN,
    Measure("auc_nawm_error", "|AUC error|, NAWM", 1, 3, -1),
    *(
        Measure(f"{key}_{group}", f"{title}, {group}", factor, digits, better)
        for group in GROUPS[1:]
        for key, title, factor, digits, better in ERRORS
    ),
)
#: Further columns of which means are reported.
_FURTHER = (
    "sharpness",
    "scale_error_percent",
    "coverage",
    "interval_coverage",
    *(f"{what}_{name}" for name in AGAINST for what in ("auc", "truth_auc")),
    *(f"auc_{name}_difference" for name in AGAINST),
)


def fold_means(results: pd.DataFrame, rows: Sequence[str]) -> pd.DataFrame:
    """One row a method and fold: means over its subjects, scans of a subject averaged first."""
    biases = [column for column in results if column.startswith("bias_")]
    keys = [key for key in dict.fromkeys([*(m.key for m in MEASURES), *_FURTHER, *biases]) if key in results]
    per_subject = results.groupby(["method", "fold", "subject"], observed=True)[keys].mean()
    folds = per_subject.groupby(["method", "fold"], observed=True).mean().reset_index()
    return _ordered(folds, rows)


def summary(results: pd.DataFrame, rows: Sequence[str]) -> pd.DataFrame:
    """One row a method: mean and SD over folds of the folds' means, and how many subjects and scans there are."""
    folds = fold_means(results, rows)
    keys = [key for key in folds if key not in ("method", "fold")]
    by = folds.groupby("method", observed=True)[keys]
    told = by.mean().add_suffix("_mean").join(by.std(ddof=1).add_suffix("_sd")).reset_index()
    counts = results.groupby("method", observed=True).agg(subjects=("subject", "nunique"), scans=("session", "size"))
    return _ordered(told.merge(counts.reset_index(), on="method"), rows)


def comparisons(results: pd.DataFrame, rows: Sequence[str], kinds: Mapping[str, str]) -> pd.DataFrame:
    """Each of our rows against every baseline, by every measure.

    Without DEMIST among the methods, the first row is compared with the others.

    Returns:
        Columns ``measure``, ``method``, ``against``, ``subjects``, ``mean_method``, ``mean_against``,
        ``median_difference`` (method minus against), ``better`` (of the two means), ``statistic``, ``p``, ``p_holm``
        (over all comparisons of the measure), ``stars``, ``best`` (whether it is the baseline with the best mean).
    """
    import pandas as pd

    ours = [row for row in rows if kinds.get(row) == OURS] or list(rows[:1])
    others = [row for row in rows if row not in ours]
    told: list[dict[str, Any]] = []
    for measure in MEASURES:
        if measure.key not in results:
            continue
        table = results.pivot_table(index="subject", columns="method", values=measure.key, observed=True, dropna=False)
        best = best_of(table, others, measure)
        family = []
        for first in (row for row in ours if row in table):
            for second in (row for row in others if row in table):
                family.append({"measure": measure.key, **_pair(table, first, second, measure), "best": second == best})
        for row, p in zip(family, holm([row["p"] for row in family])):
            row["p_holm"] = p
            row["stars"] = stars(p) if row["better"] == row["method"] else ""
        told += family
    return pd.DataFrame(told)


def best_of(table: pd.DataFrame, rows: Sequence[str], measure: Measure) -> str | None:
    """The row with the best mean over subjects; None where nobody has the measure."""
    means = {row: measure.better * float(table[row].mean()) for row in rows if row in table}
    known = {row: mean for row, mean in means.items() if math.isfinite(mean)}
    return max(known, key=lambda row: known[row]) if known else None


def _pair(table: pd.DataFrame, first: str, second: str, measure: Measure) -> dict[str, Any]:
    both = table[[first, second]].replace([np.inf, -np.inf], np.nan).dropna()
    a, b = both[first].to_numpy(float), both[second].to_numpy(float)
    statistic, p = wilcoxon(a, b)
    means = (float(a.mean()), float(b.mean())) if a.size else (math.nan, math.nan)
    ahead = measure.better * (means[0] - means[1])
    return {
        "method": first,
        "against": second,
        "subjects": int(a.size),
        "mean_method": means[0],
        "mean_against": means[1],
        "median_difference": float(np.median(a - b)) if a.size else math.nan,
        "better": first if ahead > 0 else second if ahead < 0 else "",
        "statistic": statistic,
        "p": p,
    }


def wilcoxon(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Statistic and two-sided p of paired samples (n,); p is NaN below :data:`LEAST_PAIRS` pairs, 1 if all equal."""
    from scipy.stats import wilcoxon as signed_rank

    if a.size < LEAST_PAIRS:
        return math.nan, math.nan
    if np.array_equal(a, b):
        return 0.0, 1.0
    told = signed_rank(a, b)
    return float(told.statistic), float(told.pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """P-values after Holm's correction; NaN stay, and do not count.

    Raises:
        InputError: statsmodels is not installed.
    """
    from ...errors import InputError

    try:
        from statsmodels.stats.multitest import multipletests
    except ImportError as error:
        raise InputError("Cross-validation needs statsmodels; run: pip install 'demist[evaluate]'.") from error
    known = [i for i, p in enumerate(values) if math.isfinite(p)]
    result = [math.nan] * len(values)
    if known:
        for i, p in zip(known, multipletests([values[i] for i in known], method="holm")[1]):
            result[i] = float(p)
    return result


def stars(p: float) -> str:
    """*, ** or *** for p below 0.05, 0.01 or 0.001; nothing for NaN."""
    return next((mark for limit, mark in STARS if p < limit), "")


def _ordered(table: pd.DataFrame, rows: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    table["method"] = pd.Categorical(table["method"], list(rows), ordered=True)
    by = ["method", "fold"] if "fold" in table else ["method"]
    return table.sort_values(by).reset_index(drop=True)
