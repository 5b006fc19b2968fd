"""The area under the ROC curve (AUC) and how sure it is: DeLong's variance, plain and for clustered observations.

With lesion values x_1 .. x_m, values of normal-appearing white matter y_1 .. y_n, and k(x, y) = 1 if x < y, 1/2 if
x = y, else 0 (lesions are dark on a PSR map):

    A      = 1/(mn) sum_ij k(x_i, y_j)                          the Mann-Whitney statistic U / (mn)
    V10(i) = 1/n sum_j k(x_i, y_j)                              placement of a lesion value
    V01(j) = 1/m sum_i k(x_i, y_j)                              placement of a white matter value
    var A  = S10 / m + S01 / n,   S10 = var V10, S01 = var V01  (n - 1 in the denominator)

E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44:837 (1988). The sums over pairs are never formed: the
placements follow from mid-ranks in O((m + n) log(m + n)) (X. Sun, W. Xu, IEEE Signal Process Lett 21:1389, 2014).

>>> a, v10, v01 = placements([0.05, 0.06, 0.11], [0.10, 0.11, 0.12, 0.13])
>>> round(a, 4), v10.tolist()
(0.875, [1.0, 1.0, 0.625])
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Interval = tuple[float, float]
NO_INTERVAL: Interval = (math.nan, math.nan)


@dataclass(frozen=True)
class AreaVariance:
    """How far an AUC may be off: its ``variance``, degrees of ``freedom``, independent observations on each side."""

    variance: float
    freedom: float = math.inf
    low: int = 0
    high: int = 0


def placements(low: ArrayLike, high: ArrayLike) -> tuple[float, np.ndarray, np.ndarray]:
    """AUC = P(low < high) + P(low = high) / 2 and the placements V10 (m,) of ``low`` and V01 (n,) of ``high``.

    Sun and Xu (2014), equations for one classifier: with T the mid-rank among all values and T_x, T_y those within
    each sample, V10 = 1 - (T - T_x) / n and V01 = (T - T_y) / m (signs are for low values meaning lesion).

    Raises:
        ValueError: a sample is empty or has values that are not finite.
    """
    from scipy.stats import rankdata

    low, high = np.ravel(np.asarray(low, np.float64)), np.ravel(np.asarray(high, np.float64))
    if not low.size or not high.size:
        raise ValueError("An AUC needs at least one value on each side.")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("An AUC needs finite values.")
    ranks = rankdata(np.concatenate([low, high]))
    v10 = 1.0 - (ranks[: low.size] - rankdata(low)) / high.size
    v01 = (ranks[low.size :] - rankdata(high)) / low.size
    return float(v01.mean()), v10, v01


def variance(v10: np.ndarray, v01: np.ndarray) -> AreaVariance:
    """DeLong's variance of the AUC, all observations independent; NaN if a side has one observation only.

    ``v10`` (n,) and ``v01`` (m,) are the placement values of both sides, see :func:`placements`.

    Degrees of freedom are Satterthwaite's (E. Brunner, U. Munzel, Biom J 42:17, 2000, whose variance is the same): few
    lesions make a wide interval, many observations the normal one.
    """
    if v10.size < 2 or v01.size < 2:
        return AreaVariance(math.nan, math.nan, v10.size, v01.size)
    parts = float(v10.var(ddof=1) / v10.size), float(v01.var(ddof=1) / v01.size)
    return AreaVariance(sum(parts), _satterthwaite(parts, (v10.size, v01.size)), v10.size, v01.size)


def clustered_variance(
    v10: np.ndarray, v01: np.ndarray, low_clusters: ArrayLike, high_clusters: ArrayLike
) -> AreaVariance:
    """Variance of the AUC where only clusters are independent.

    N. A. Obuchowski, Biometrics 53:567 (1997). Placements are summed within each cluster i,

        S10 = I10/((I10 - 1) m) sum_i (V10_i+ - m_i A)^2,   S01 alike,
        S11 = I/(I - 1) sum_i (V10_i+ - m_i A)(V01_i+ - n_i A),
        var A = S10/m + S01/n + 2 S11/(mn)

    I10 and I01 are the numbers of clusters that hold low and high values, I the number of all. One observation per
    cluster, none shared: DeLong's variance. NaN with fewer than two clusters on a side.

    Args:
        v10, v01: placements from :func:`placements`, (m,) and (n,).
        low_clusters, high_clusters: cluster of each observation, whole numbers; a number means the same cluster on
            both sides.
    """
    low_clusters, high_clusters = np.ravel(low_clusters), np.ravel(high_clusters)
    if low_clusters.shape != v10.shape or high_clusters.shape != v01.shape:
        raise ValueError("Every observation needs a cluster.")
    area, m, n = float(v01.mean()), v10.size, v01.size
    names, index = np.unique(np.concatenate([low_clusters, high_clusters]), return_inverse=True)
    of_low, of_high = index[:m], index[m:]
    count = names.size
    low_size, high_size = np.bincount(of_low, minlength=count), np.bincount(of_high, minlength=count)
    low_sum = np.bincount(of_low, v10, minlength=count) - low_size * area
    high_sum = np.bincount(of_high, v01, minlength=count) - high_size * area
    i10, i01 = int((low_size > 0).sum()), int((high_size > 0).sum())
    if i10 < 2 or i01 < 2:
        return AreaVariance(math.nan, math.nan, i10, i01)
    parts = (
        i10 / (i10 - 1) * float(low_sum @ low_sum) / m**2,
        i01 / (i01 - 1) * float(high_sum @ high_sum) / n**2,
    )
    shared = 2 * count / (count - 1) * float(low_sum @ high_sum) / (m * n)
    return AreaVariance(max(sum(parts) + shared, 0.0), _satterthwaite(parts, (i10, i01)), i10, i01)


def _satterthwaite(parts: tuple[float, float], counts: tuple[int, int]) -> float:
    """Degrees of freedom of a sum of two variances of means; infinite where both are 0."""
    below = sum(part**2 / (count - 1) for part, count in zip(parts, counts))
    return sum(parts) ** 2 / below if below > 0 else math.inf


def interval(area: float, estimate: AreaVariance, confidence: float = 0.95) -> tuple[Interval, str]:
    """Confidence interval of an AUC, and by which method: :func:`logit_interval`, else :func:`separated_interval`.

    The method is ``"logit"``, ``"newcombe"``, or ``""`` where one observation on a side leaves no interval.
    """
    if not math.isfinite(estimate.variance):
        return NO_INTERVAL, ""
    if 0 < area < 1 and estimate.variance > 0:
        return logit_interval(area, estimate, confidence), "logit"
    return separated_interval(area, estimate.low, estimate.high, confidence), "newcombe"


def logit_interval(area: float, estimate: AreaVariance, confidence: float = 0.95) -> Interval:
    """Confidence interval of an AUC from its variance, on the logit scale, so that it stays inside 0 to 1.

    logit A -+ t SE / (A (1 - A)), taken back by the logistic function (M. S. Pepe, The Statistical Evaluation of
    Medical Tests for Classification and Prediction, Oxford 2003); t is Student's quantile. NaN where the variance is
    unknown or the AUC is 0 or 1.

    >>> [round(v, 3) for v in logit_interval(0.9, AreaVariance(0.03**2))]
    [0.824, 0.945]
    """
    from scipy.special import expit, logit
    from scipy.stats import t

    if not (0 < area < 1 and math.isfinite(estimate.variance)):
        return NO_INTERVAL
    half = t.ppf(0.5 + confidence / 2, estimate.freedom) * math.sqrt(estimate.variance) / (area * (1 - area))
    middle = logit(area)
    return float(expit(middle - half)), float(expit(middle + half))


def separated_interval(area: float, m: float, n: float, confidence: float = 0.95) -> Interval:
    """Confidence interval of an AUC from the numbers of independent observations alone; holds for 0 and 1 as well.

    R. G. Newcombe, Stat Med 25:559 (2006), method 5: all A with |A - area| <= z sqrt(V(A)), and, N = (m + n)/2,

        V(A) = A (1 - A)/(mn) [1 + (N - 1)((1 - A)/(2 - A) + A/(1 + A))]

    This is what is used where the samples are separated completely: there DeLong's variance is 0, which says that
    nothing overlapped, not that nothing ever will.

    >>> [round(v, 3) for v in separated_interval(1.0, 10, 30)]
    [0.866, 1.0]
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z2 = norm.ppf(0.5 + confidence / 2) ** 2
    half = (m + n) / 2 - 1

    def miss(a: float) -> float:
        variance_at = a * (1 - a) / (m * n) * (1 + half * ((1 - a) / (2 - a) + a / (1 + a)))
        return (a - area) ** 2 - z2 * variance_at

    # miss is positive at the end that is away from the area, negative beside it, zero at the limit.
    low = 0.0 if miss(1e-12) <= 0 else brentq(miss, 1e-12, max(area - 1e-12, 2e-12))
    high = 1.0 if miss(1 - 1e-12) <= 0 else brentq(miss, min(area + 1e-12, 1 - 2e-12), 1 - 1e-12)
    return float(low), float(high)
