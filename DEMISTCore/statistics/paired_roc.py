"""Two maps of the same voxels: is one's area under the ROC curve larger than the other's, over patients.

Both maps are asked about the same lesion and white matter voxels, so their areas are correlated, and the difference is
surer than either. The placements of a map (:func:`.delong.placements`) are what its area is the mean of, and so the
difference of two areas is the mean of differences of placements: DeLong's covariance formula for two correlated curves
is DeLong's variance of these differences, and Obuchowski's for clusters likewise.

E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44:837 (1988); N. A. Obuchowski, Biometrics 53:567 (1997);
B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .delong import NO_INTERVAL, AreaVariance, Interval, clustered_variance, placements, variance

RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedAreas:
    """Areas of two maps and their difference, first minus second.

    Attributes:
        first, second, difference: areas over all voxels given.
        ci, p: DeLong's interval of the difference and two-sided p, every voxel taken for independent.
        ci_patients, p_patients: the same with patients as clusters, Student's t; the ones to believe.
        ci_bootstrap: percentile interval, patients drawn with replacement.
        patients: who has lesion or white matter voxels.

    What cannot be had is NaN.
    """

    first: float
    second: float
    difference: float
    ci: Interval
    p: float
    ci_patients: Interval
    p_patients: float
    ci_bootstrap: Interval
    patients: int


def paired_areas(
    low: tuple[ArrayLike, ArrayLike],
    high: tuple[ArrayLike, ArrayLike],
    low_patients: ArrayLike,
    high_patients: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedAreas:
    """Compare two maps; low PSR means lesion.

    Args:
        low: values of the first and of the second map in the same lesion voxels, (m,) each.
        high: the same in white matter voxels, (n,).
        low_patients, high_patients: whole number of each voxel's patient.
        confidence: of the intervals.
        resamples: of the bootstrap.
        seed: of its draws: same values, same interval.

    Raises:
        ValueError: a side is empty, or values are not finite or not paired.

    >>> truth, made = [0.05, 0.06, 0.11], [0.05, 0.12, 0.11]
    >>> nawm = [0.10, 0.11, 0.12, 0.13]
    >>> told = paired_areas((truth, made), (nawm, nawm), [0, 0, 1], [0, 0, 1, 1], resamples=100)
    >>> round(told.first, 3), round(told.second, 3), round(told.difference, 3)
    (0.875, 0.667, 0.208)
    """
    (a_low, b_low), (a_high, b_high) = ((np.ravel(np.asarray(v, np.float64)) for v in pair) for pair in (low, high))
    low_patients, high_patients = np.ravel(low_patients), np.ravel(high_patients)
    if not a_low.shape == b_low.shape == low_patients.shape or not a_high.shape == b_high.shape == high_patients.shape:
        raise ValueError("Both maps need a value, and a patient, for every voxel.")
    first, a10, a01 = placements(a_low, a_high)
    second, b10, b01 = placements(b_low, b_high)
    difference, d10, d01 = first - second, a10 - b10, a01 - b01
    plain = variance(d10, d01)
    ci, p = _normal(difference, plain.variance, confidence)
    clustered = clustered_variance(d10, d01, low_patients, high_patients)
    ci_patients, p_patients = _student(difference, clustered, confidence)
    names = np.union1d(low_patients, high_patients)
    drawn = _bootstrap(
        [
            kernel_sums(values, low_patients, others, high_patients, names)
            for values, others in ((a_low, a_high), (b_low, b_high))
        ],
        np.array([(low_patients == name).sum() for name in names]),
        np.array([(high_patients == name).sum() for name in names]),
        resamples,
        seed,
    )
    tail = 50 * (1 - confidence)
    ends = np.percentile(drawn, (tail, 100 - tail)) if drawn.size > 1 and names.size > 1 else NO_INTERVAL
    return PairedAreas(
        first, second, difference, ci, p, ci_patients, p_patients, (float(ends[0]), float(ends[1])), int(names.size)
    )


def kernel_sums(
    low: np.ndarray,
    low_patients: np.ndarray,
    high: np.ndarray,
    high_patients: np.ndarray,
    names: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """Sums of k(x, y) = 1 if x < y, 1/2 if equal, over lesion voxels of patient i and white matter of j, (P, P).

    A resampled cohort's area follows from these sums and from how often each patient was drawn, without its voxels.
    """
    ordered = [np.sort(high[high_patients == name]) for name in names]
    sums = np.zeros((len(names), len(names)))
    for i, name in enumerate(names):
        own = low[low_patients == name]
        for j, others in enumerate(ordered):
            if own.size and others.size:
                beyond = 2 * others.size - np.searchsorted(others, own, "right") - np.searchsorted(others, own, "left")
                sums[i, j] = beyond.sum() / 2
    return sums


def _bootstrap(
    kernels: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Differences of the two areas in resampled cohorts, (resamples,); those without lesion or white matter go."""
    rng, count = np.random.default_rng(seed), low.size
    drawn = rng.integers(0, count, (resamples, count))
    weights = np.zeros((resamples, count))
    np.add.at(weights, (np.arange(resamples)[:, None], drawn), 1.0)
    pairs = (weights @ low) * (weights @ high)
    kept = pairs > 0
    moved = np.einsum("ri,ij,rj->r", weights, kernels[0] - kernels[1], weights, optimize=True)
    return moved[kept] / pairs[kept]


def _normal(difference: float, squared: float, confidence: float) -> tuple[Interval, float]:
    from scipy.stats import norm

    if not math.isfinite(squared):
        return NO_INTERVAL, math.nan
    if squared <= 0:
        return (difference, difference), 1.0 if difference == 0 else math.nan
    error = math.sqrt(squared)
    half = norm.ppf(0.5 + confidence / 2) * error
    return (difference - half, difference + half), float(2 * norm.sf(abs(difference) / error))


def _student(difference: float, estimate: AreaVariance, confidence: float) -> tuple[Interval, float]:
    from scipy.stats import t

    if not math.isfinite(estimate.variance):
        return NO_INTERVAL, math.nan
    if estimate.variance <= 0:
        return (difference, difference), 1.0 if difference == 0 else math.nan
    error = math.sqrt(estimate.variance)
    half = float(t.ppf(0.5 + confidence / 2, estimate.freedom)) * error
    return (difference - half, difference + half), float(2 * t.sf(abs(difference) / error, estimate.freedom))
