"""Quantiles of errors that hold on subjects never seen: conformal prediction with the subject as the unit."""

from __future__ import annotations

import math

import numpy as np

#: Slack for sums of weights in float64.
_ROUNDING = 1e-9


def subjects_needed(level: float) -> int:
    """The fewest subjects that give a finite interval of that level: ceil((n + 1) level) <= n.

    >>> subjects_needed(0.9), subjects_needed(0.95)
    (9, 19)
    """
    return math.ceil(level / (1 - level) - _ROUNDING)


def conformal_quantile(
    scores: np.ndarray,
    subjects: np.ndarray,
    levels: tuple[float, ...],
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[float, ...]:
    """The quantile of the scores that a new subject's score stays below with probability ``level``, by level.

    Voxels and regions of one subject are not exchangeable with those of another, subjects are: each subject has the
    same weight, shared by its scores (pooled distribution functions of Dunn, Wasserman, Ramdas, *JASA* 118:2491, 2023).
    For finitely many, the level is raised to level (n + 1) / n, as split-conformal prediction does with n independent
    scores. Here n is the number of independent scores that would pin the pooled coverage down as well as these do,

        n = level (1 - level) K / var(coverage of a subject)

    (Kish's design effect): K, the number of subjects, where a subject's scores rise and fall together, up to all scores
    where they do not. With one score a subject it is exactly split-conformal prediction, the ceil((K + 1) level)-th
    smallest score. Counting K always, as Lee, Barber, Willett (arXiv 2306.06342) do, gives a guarantee and needlessly
    wide intervals: 0.99 instead of 0.95 for the voxels of 24 subjects. Where subjects come in groups that are covered
    alike, K counts these, and the variance is that of their coverage.

    Args:
        scores: (N,) absolute errors in units of their predicted spread.
        subjects: (N,) subject of each score.
        levels: probabilities, 0 to 1.
        weights: (N,) how many voxels each score stands for within its subject; None: all alike.
        groups: (N,) group of each score's subject; None: there are none.

    Returns:
        One number a level, infinite where there are too few subjects (:func:`subjects_needed`).
    """
    _, subject, count = np.unique(subjects, return_inverse=True, return_counts=True)
    number = len(count)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    weights = weights / np.bincount(subject, weights)[subject]
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) / number
    ordered = np.asarray(scores, np.float64)[order]
    group = None
    if groups is not None:
        first = np.unique(subject, return_index=True)[1]
        group = np.unique(np.asarray(groups)[first], return_inverse=True)[1]
    found = []
    for level in levels:
        if number < subjects_needed(level):
            found.append(math.inf)
            continue
        plain = ordered[min(int(np.searchsorted(reached, level - _ROUNDING)), len(ordered) - 1)]
        covered = np.bincount(subject, weights * (scores <= plain), number)
        independent = min(max(_independent(covered, level), number), len(ordered))
        if group is not None:
            members = np.bincount(group)
            by_group = np.bincount(group, covered) / members
            independent = min(independent, max(_independent(by_group, level), len(members)))
        raised = min(level * (independent + 1) / independent, 1.0)
        found.append(float(ordered[min(int(np.searchsorted(reached, raised - _ROUNDING)), len(ordered) - 1)]))
    return tuple(found)


def _independent(covered: np.ndarray, level: float) -> float:
    """Independent scores that would make the mean of these shares vary as it does; infinite if they are all alike."""
    variance = float(covered.var(ddof=1)) if len(covered) > 1 else math.inf
    return level * (1 - level) * len(covered) / variance if variance > 0 else math.inf
