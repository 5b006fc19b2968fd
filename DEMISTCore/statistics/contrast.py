"""Lesions against normal-appearing white matter (NAWM): ROC curves with confidence intervals, thresholds, effect sizes.

Low PSR means lesion. Two levels, because two questions are asked:

- **voxel**: can one voxel of a lesion be told from one voxel of NAWM? Every voxel counts once, large lesions more than
  small ones. Neighbouring voxels repeat each other, so DeLong's interval, which takes them for independent, is far too
  narrow; beside it stands one that takes only lesions and blocks of NAWM for independent (Obuchowski 1997).
- **lesion**: can a lesion be told from a piece of NAWM of its size? One observation is the mean of one lesion, or of
  one compact patch of NAWM with as many voxels; every lesion counts once.

>>> curve = roc([0.05, 0.06, 0.11], [0.10, 0.11, 0.12, 0.13])
>>> round(curve.auc, 3), curve.youden_threshold, round(curve.cohens_d, 2)
(0.875, 0.06, 1.84)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..volume import Volume
from . import delong, units
from .delong import Interval

if TYPE_CHECKING:
    from ..regions import Regions

Level = Literal["voxel", "lesion"]

#: What lesions are compared with, in the order of tables and legends.
AGAINST = ("nawm", "nawm_proximal", "nawm_distal")


@dataclass(frozen=True, eq=False)
class Roc:
    """One ROC curve: a value is called lesion if it is at or below the threshold.

    Attributes:
        fpr, tpr, thresholds: the curve from (0, 0) to (1, 1), (k,) each; thresholds ascend from minus infinity (PSR).
        auc: area under it, P(lesion < NAWM) + P(equal) / 2; below 0.5 if lesions are the brighter ones.
        ci: DeLong's confidence interval (logit scale), all observations taken for independent; NaN if unknown.
        ci_method: ``"logit"``, ``"newcombe"`` (samples separated completely), or empty.
        ci_clustered: the same for clusters of observations (Obuchowski 1997); None if no clusters were given.
        clusters: numbers of clusters of lesion and NAWM observations; None likewise.
        youden_threshold: PSR at or below which sensitivity + specificity is largest (the lowest one, on ties).
        sensitivity, specificity: at that threshold, in the very data it was chosen from: optimistic.
        cohens_d: (mean NAWM - mean lesion) / pooled standard deviation; NaN if that is 0 or unknown.
        n_lesion, n_nawm: observations.
        level: ``"voxel"`` or ``"lesion"``.
    """

    fpr: np.ndarray
    tpr: np.ndarray
    thresholds: np.ndarray
    auc: float
    ci: Interval
    ci_method: str
    ci_clustered: Interval | None
    clusters: tuple[int, int] | None
    youden_threshold: float
    sensitivity: float
    specificity: float
    cohens_d: float
    n_lesion: int
    n_nawm: int
    level: Level = "voxel"

    @property
    def best_ci(self) -> Interval:
        """The interval to believe: by clusters where there is one."""
        return self.ci if self.ci_clustered is None else self.ci_clustered


@dataclass(frozen=True, eq=False)
class Contrast:
    """Lesions against one kind of NAWM.

    Attributes:
        against: key of the region, as in ``DEMISTCore.regions.REGIONS``.
        voxel, lesion: the curves at both levels; None where one could not be made, and ``notes`` say why.
        difference: mean PSR of all lesion voxels minus that of the NAWM.
        percent: that difference in percent of the NAWM's mean; NaN if that is 0.
        seed_sd: standard deviation of the difference from seed to seed (ddof 1); None without single-seed maps.
        notes: plain sentences.
    """

    against: str
    voxel: Roc | None
    lesion: Roc | None
    difference: float
    percent: float
    seed_sd: float | None
    notes: tuple[str, ...] = ()


def roc(
    psr_lesion: ArrayLike,
    psr_nawm: ArrayLike,
    *,
    level: Level = "voxel",
    lesion_clusters: ArrayLike | None = None,
    nawm_clusters: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Roc:
    """ROC curve of low PSR for lesion, from the values of both.

    Args:
        psr_lesion, psr_nawm: observations, any shape; those that are not finite are left out.
        level: what an observation is; for the record.
        lesion_clusters, nawm_clusters: whole numbers, the cluster of each observation; give both or none. A number
            means the same cluster on both sides.
        confidence: of the intervals.

    Raises:
        InputError: a side has no finite value.
        ValueError: clusters that do not fit.
    """
    low, low_clusters = _finite(psr_lesion, lesion_clusters)
    high, high_clusters = _finite(psr_nawm, nawm_clusters)
    if (low_clusters is None) != (high_clusters is None):
        raise ValueError("Clusters are needed on both sides or on none.")
    for name, values in (("lesions", low), ("NAWM", high)):
        if not values.size:
            raise InputError(f"The {name} have no finite PSR value, so there is no ROC curve; check the masks.")
    area, v10, v01 = delong.placements(low, high)
    ci, method = delong.interval(area, delong.variance(v10, v01), confidence)
    ci_clustered, clusters = None, None
    if low_clusters is not None and high_clusters is not None:
        clustered = delong.clustered_variance(v10, v01, low_clusters, high_clusters)
        ci_clustered, _ = delong.interval(area, clustered, confidence)
        clusters = (clustered.low, clustered.high)
    fpr, tpr, thresholds = curve(low, high)
    best = int(np.argmax(tpr - fpr))
    return Roc(
        fpr,
        tpr,
        thresholds,
        area,
        ci,
        method,
        ci_clustered,
        clusters,
        float(thresholds[best]),
        float(tpr[best]),
        float(1 - fpr[best]),
        cohens_d(low, high),
        low.size,
        high.size,
        level,
    )


def curve(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positive rates (k,) and thresholds (k,) of the rule "lesion if value <= threshold".

    One point per distinct value, after (0, 0) at minus infinity.
    """
    values = np.unique(np.concatenate([low, high]))
    tpr = np.searchsorted(np.sort(low), values, side="right") / low.size
    fpr = np.searchsorted(np.sort(high), values, side="right") / high.size
    return np.r_[0.0, fpr], np.r_[0.0, tpr], np.r_[-math.inf, values]


def cohens_d(low: np.ndarray, high: np.ndarray) -> float:
    """(mean high - mean low) / pooled SD with n - 1 weights (J. Cohen, Statistical Power Analysis, 2nd ed. 1988).

    (n,) and (m,), in one unit.
    """
    freedom = low.size + high.size - 2
    if freedom < 1:
        return math.nan
    squares = ((low - low.mean()) ** 2).sum() + ((high - high.mean()) ** 2).sum()
    pooled = math.sqrt(squares / freedom)
    return float((high.mean() - low.mean()) / pooled) if pooled > 0 else math.nan


def contrasts(
    psr: Volume,
    regions: Regions,
    *,
    samples: Sequence[Volume] = (),
    block_mm: float = 20.0,
    patches_per_lesion: int = 3,
    confidence: float = 0.95,
) -> list[Contrast]:
    """Lesions against all, proximal and distal NAWM, at both levels.

    Args:
        psr: the map, fraction.
        regions: masks on the map's grid.
        samples: maps of single seeds, on that grid.
        block_mm: edge of the blocks of NAWM that count as independent at the voxel level.
        patches_per_lesion: patches of NAWM cut for each lesion, as far as they fit into half of it.
        confidence: of the intervals.

    Returns:
        One per kind of NAWM that there is; empty without lesions.

    Raises:
        InputError: lesions and NAWM overlap, or masks are on another grid.
    """
    if regions.lesions is None or not regions.lesions.count:
        return []
    found = []
    for key in AGAINST:
        if key not in regions.masks:
            continue
        found.append(_contrast(psr, regions, key, samples, block_mm, patches_per_lesion, confidence))
    return found


def _contrast(
    psr: Volume,
    regions: Regions,
    key: str,
    samples: Sequence[Volume],
    block_mm: float,
    per_lesion: int,
    confidence: float,
) -> Contrast:
    from ..regions import REGIONS

    name = REGIONS[key]
    numbers, nawm = regions.lesions.numbers.array, regions.masks[key].array > 0
    for what, array in (("lesion", numbers), (name, nawm)):
        if array.shape != psr.shape:
            raise InputError(f"The {what} mask does not lie on the PSR map's grid; resample it first.")
    shared = int(((numbers > 0) & nawm).sum())
    if shared:
        raise InputError(f"Lesions and {name} overlap in {shared} voxels; take the lesions out of the {name} mask.")
    finite = np.isfinite(psr.array)
    lesion_at, nawm_at = np.nonzero((numbers > 0) & finite), np.nonzero(nawm & finite)
    nothing = Contrast(key, None, None, math.nan, math.nan, None)
    if not lesion_at[0].size:
        return _noted(nothing, "No lesion has a finite PSR value, so there is no ROC curve.")
    if not nawm_at[0].size:
        return _noted(nothing, f"{name} has no voxel with a finite PSR value, so there is no ROC curve against it.")

    low, high = psr.array[lesion_at].astype(np.float64), psr.array[nawm_at].astype(np.float64)
    of_lesion = numbers[lesion_at]
    cubes = units.blocks(nawm_at, psr.spacing, block_mm) + int(of_lesion.max()) + 1
    voxel = roc(low, high, lesion_clusters=of_lesion, nawm_clusters=cubes, confidence=confidence)
    notes = []
    if voxel.clusters is not None and math.isnan(voxel.best_ci[0]):
        lesions, cubes_of_nawm = voxel.clusters
        notes.append(
            f"Against {name} there are {_count(lesions, 'lesion')} and {_count(cubes_of_nawm, 'block')} "
            "of NAWM; an interval that allows for clustering needs two of each."
        )
    lesion, sentence = _lesion_level(psr, nawm & finite, low, of_lesion, name, per_lesion, confidence)
    if sentence:
        notes.append(sentence)
    difference = float(low.mean() - high.mean())
    percent = 100 * difference / float(high.mean()) if high.mean() else math.nan
    seed_sd = None
    if len(samples) > 1:
        moved = [
            np.nanmean(s.array[lesion_at], dtype=np.float64) - np.nanmean(s.array[nawm_at], dtype=np.float64)
            for s in samples
        ]
        seed_sd = float(np.std(moved, ddof=1))
    return Contrast(key, voxel, lesion, difference, percent, seed_sd, tuple(notes))


def _lesion_level(
    psr: Volume, nawm: np.ndarray, low: np.ndarray, of_lesion: np.ndarray, name: str, per_lesion: int, confidence: float
) -> tuple[Roc | None, str]:
    """The curve of lesion means against means of patches of NAWM of the same sizes, and what is to be said about it."""
    sizes = np.bincount(of_lesion)
    sums = np.bincount(of_lesion, low)
    means, sizes = sums[sizes > 0] / sizes[sizes > 0], sizes[sizes > 0]
    if means.size < 2:
        return None, f"There is one lesion only, so there is no lesion-level ROC curve against {name}."
    # Half of the region at most, so that patches find room; at least one for each lesion.
    room = int(0.5 * nawm.sum() // sizes.sum())
    each = min(max(room, 1), per_lesion)
    patches = units.matched_patches(nawm, sizes, psr.spacing, per_size=each)
    if len(patches) < 2:
        return None, f"{name} is too small for patches of the size of lesions, so there is no lesion-level ROC curve."
    flat = psr.array.ravel()
    curve = roc(means, [float(flat[p].mean(dtype=np.float64)) for p in patches], level="lesion", confidence=confidence)
    missing = each * means.size - len(patches)
    if missing:
        return curve, f"{missing} of {each * means.size} patches matched to lesions found no room in {name}."
    return curve, ""


def _finite(values: ArrayLike, clusters: ArrayLike | None) -> tuple[np.ndarray, np.ndarray | None]:
    values = np.ravel(np.asarray(values, np.float64))
    keep = np.isfinite(values)
    if clusters is None:
        return values[keep], None
    numbers = np.ravel(clusters)
    if numbers.shape != values.shape:
        raise ValueError("Every observation needs a cluster.")
    return values[keep], numbers[keep]


def _noted(contrast: Contrast, sentence: str) -> Contrast:
    from dataclasses import replace

    return replace(contrast, notes=(*contrast.notes, sentence))


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
