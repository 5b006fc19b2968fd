"""Two methods on the same subjects: the mean difference and how sure one can be of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences over ``subjects``, with a 95 % interval (NaN below two subjects)."""

    mean: float
    low: float
    high: float
    subjects: int

    @property
    def clear(self) -> bool:
        """True if the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """First minus second, averaged over subjects; percentile bootstrap over subjects (Efron and Tibshirani 1993).

    Args:
        first, second: one number a subject, in one order. Subjects for whom one is NaN are left out.
        level: of the interval.
        resamples: how many times subjects are drawn with replacement.
        seed: of the draws: same numbers, same interval.

    Raises:
        ValueError: the two differ in length.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError("Paired differences take two lists of the same subjects.")
    difference = (a - b)[np.isfinite(a - b)]
    count = difference.size
    mean = float(difference.mean()) if count else math.nan
    if count < 2:
        return Difference(mean, math.nan, math.nan, count)
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    tail = 50 * (1 - level)
    low, high = np.percentile(difference[drawn].mean(1), (tail, 100 - tail))
    return Difference(mean, float(low), float(high), count)
