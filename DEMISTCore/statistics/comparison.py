"""Two maps of one brain: how far apart, how well in step. Synthesized against measured PSR, or two time points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..volume import Volume
from . import units
from .delong import NO_INTERVAL, Interval

if TYPE_CHECKING:
    from ..regions import Regions

#: Columns of the comparison by region.
COLUMNS = {
    "region": "key of the region; lesion for the row of each single lesion, too",
    "lesion": "number of the lesion; empty for whole regions",
    "name": "for people",
    "voxels": "voxels with finite values in both maps",
    "mean": "mean of the map",
    "reference_mean": "mean of the reference",
    "difference": "mean of the map minus mean of the reference",
    "percent": "that difference in percent of the reference's mean; empty where that is below 0.005",
    "sd_difference": "standard deviation of the difference over voxels (n - 1)",
    "pearson": "correlation of the two maps over the region's voxels",
}


@dataclass(frozen=True)
class Agreement:
    """Agreement of paired values a and b; differences are a - b.

    Attributes:
        n: pairs.
        bias, bias_ci: mean difference and its confidence interval.
        sd: standard deviation of the differences (n - 1).
        lower, lower_ci, upper, upper_ci: 95 % limits of agreement, bias -+ 1.96 sd, and their confidence intervals.
        pearson, spearman: correlations. They say how well a and b are in step, not whether they agree.
        concordance: Lin's concordance correlation coefficient (Biometrics 45:255, 1989; moments with n).
        icc: intraclass correlation for absolute agreement of single values, two-way random effects: ICC(2,1) of
            P. E. Shrout, J. L. Fleiss, Psychol Bull 86:420 (1979).
        clusters: independent clusters that the intervals count; None if every pair counts as independent.

    What cannot be had is NaN.
    """

    n: int
    bias: float
    bias_ci: Interval
    sd: float
    lower: float
    lower_ci: Interval
    upper: float
    upper_ci: Interval
    pearson: float
    spearman: float
    concordance: float
    icc: float
    clusters: int | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """A map beside a reference map of the same brain.

    Attributes:
        voxel: over all voxels of all regions, intervals by blocks of space; None without any.
        lesion: over lesions, one mean each; None with fewer than three.
        regions: one row per region and lesion, with the keys of :data:`COLUMNS`.
        notes: plain sentences.
    """

    voxel: Agreement | None
    lesion: Agreement | None
    regions: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def agreement(a: ArrayLike, b: ArrayLike, *, clusters: ArrayLike | None = None, confidence: float = 0.95) -> Agreement:
    """Bland-Altman bias and limits, correlations, concordance of paired values (n,), n at least 2.

    Without ``clusters``, intervals are those of J. M. Bland, D. G. Altman, Stat Methods Med Res 8:135 (1999):
    bias -+ t sd / sqrt(n), and limit -+ t sd sqrt(1/n + 1.96^2 / (2 (n - 1))), t with n - 1 degrees of freedom.

    With ``clusters`` (whole numbers, (n,)) only clusters are taken for independent, nothing for normal. Pair i, with
    e_i = d_i - bias, moves the limit bias -+ 1.96 sd by u_i / n, u_i = e_i -+ 1.96 (e_i^2 - sd^2) / (2 sd). The limit's
    variance is G/(G - 1) sum over the G clusters of (sum of u_i within)^2 / n^2; t has G - 1 degrees of freedom
    (linearisation, as for estimates from cluster samples: W. G. Cochran, Sampling Techniques, 3rd ed. 1977).

    >>> agreement([1.0, 2.0, 3.5, 4.5], [1.0, 2.0, 3.0, 4.0]).bias
    0.25

    Raises:
        ValueError: samples differ in length, have fewer than 2 pairs or values that are not finite.
    """
    from scipy.stats import rankdata, t

    a, b = np.ravel(np.asarray(a, np.float64)), np.ravel(np.asarray(b, np.float64))
    if a.shape != b.shape or a.size < 2:
        raise ValueError("Agreement needs two samples of one length, two pairs or more.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("Agreement needs finite values.")
    n, d = a.size, a - b
    bias, sd = float(d.mean()), float(d.std(ddof=1))
    z = 1.959963984540054
    tail = 0.5 + confidence / 2
    errors: dict[int, float]  # standard error of bias (0), lower (-1) and upper limit (1)
    if clusters is None:
        count, freedom = None, n - 1
        limit = sd * math.sqrt(1 / n + z**2 / (2 * (n - 1)))
        errors = {0: sd / math.sqrt(n), -1: limit, 1: limit}
    else:
        _, index = np.unique(np.ravel(clusters), return_inverse=True)
        if index.size != n:
            raise ValueError("Every pair needs a cluster.")
        count = int(index.max()) + 1
        freedom = count - 1
        curved = (d - bias) ** 2 - sd**2
        curved = curved / (2 * sd) if sd > 0 else np.zeros(n)
        errors = {}
        for side in (0, -1, 1):
            sums = np.bincount(index, d - bias + side * z * curved)
            errors[side] = math.sqrt(count / (count - 1) * float(sums @ sums)) / n if count > 1 else math.nan
    values = {side: bias + side * z * sd for side in (0, -1, 1)}
    ci = {
        side: NO_INTERVAL
        if math.isnan(errors[side])
        else (values[side] - t.ppf(tail, freedom) * errors[side], values[side] + t.ppf(tail, freedom) * errors[side])
        for side in values
    }
    return Agreement(
        n,
        bias,
        _pair(ci[0]),
        sd,
        values[-1],
        _pair(ci[-1]),
        values[1],
        _pair(ci[1]),
        pearson(a, b),
        pearson(rankdata(a), rankdata(b)),
        concordance(a, b),
        icc(a, b),
        count,
    )


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation coefficient; NaN if a or b does not vary. Both (n,)."""
    x, y = a - a.mean(), b - b.mean()
    below = math.sqrt(float(x @ x) * float(y @ y))
    return min(1.0, max(-1.0, float(x @ y) / below)) if below > 0 else math.nan


def concordance(a: np.ndarray, b: np.ndarray) -> float:
    """Lin's concordance correlation: 2 cov / (var a + var b + (mean a - mean b)^2), moments divided by n. Both (n,)."""
    below = float(a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    return 2 * float(np.mean((a - a.mean()) * (b - b.mean()))) / below if below > 0 else math.nan


def icc(a: np.ndarray, b: np.ndarray) -> float:
    """ICC(2,1): (BMS - EMS) / (BMS + EMS + 2 (JMS - EMS) / n) for two values of each of n targets.

    BMS, JMS and EMS are the mean squares between targets, between the two maps, and of what is left (Shrout and Fleiss
    1979).
    """
    n = a.size
    pair, d = (a + b) / 2, a - b
    between = 2 * float(pair.var(ddof=1))
    maps = n * float(d.mean()) ** 2 / 2
    error = float(d.var(ddof=1)) / 2
    below = between + error + 2 * (maps - error) / n
    return (between - error) / below if below > 0 else math.nan


def compare(a: Volume, b: Volume, regions: Regions, *, block_mm: float = 20.0, confidence: float = 0.95) -> Comparison:
    """Map ``a`` beside reference ``b``, over all voxels, over lesions and region by region.

    Args:
        a: the map, fraction.
        b: the reference, fraction, on any grid in the same space; resampled linearly to the map's, with a note.
        regions: masks on the map's grid.
        block_mm: edge of the blocks that count as independent at the voxel level.
        confidence: of the intervals.

    Raises:
        InputError: the maps have no voxel in common.
    """
    from ..regions import REGIONS
    from .table import pieces

    notes = []
    if not b.grid.same_as(a.grid):
        notes.append(f"{b.path or 'The reference map'} was resampled to the PSR map's grid (linear).")
        b = b.resampled_to(a, fill=math.nan)
    both = np.isfinite(a.array) & np.isfinite(b.array)
    flat_a, flat_b = a.array.ravel(), b.array.ravel()
    rows, means, everywhere = [], [], np.zeros(both.size, bool)
    for start, index in pieces(a, regions, REGIONS):
        index = index[both.ravel()[index]]
        everywhere[index] = True
        row = _row(flat_a[index].astype(np.float64), flat_b[index].astype(np.float64))
        start.pop("black_hole")
        rows.append({**start, "voxels": int(index.size), **row})
        if start["lesion"] is not None and index.size:
            means.append((row["mean"], row["reference_mean"]))
    if everywhere.sum() < 2:
        raise InputError(
            f"{b.path or 'The reference map'} has no values where the PSR map's regions are; give a map of this brain."
        )
    where = np.nonzero(everywhere.reshape(a.shape))
    voxel = agreement(
        a.array[where], b.array[where], clusters=units.blocks(where, a.spacing, block_mm), confidence=confidence
    )
    lesion = agreement(*np.transpose(means), confidence=confidence) if len(means) >= 3 else None
    if lesion is None and means:
        notes.append("Fewer than three lesions are too few for agreement over lesions.")
    return Comparison(voxel, lesion, rows, tuple(notes))


def _row(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    if not a.size:
        return dict.fromkeys(("mean", "reference_mean", "difference", "percent", "sd_difference", "pearson"), math.nan)
    difference, reference = float(a.mean() - b.mean()), float(b.mean())
    return {
        "mean": float(a.mean()),
        "reference_mean": reference,
        "difference": difference,
        "percent": 100 * difference / reference if reference >= 0.005 else math.nan,
        "sd_difference": float((a - b).std(ddof=1)) if a.size > 1 else math.nan,
        "pearson": pearson(a, b) if a.size > 2 else math.nan,
    }


def _pair(values: tuple[float, float]) -> Interval:
    return float(values[0]), float(values[1])
