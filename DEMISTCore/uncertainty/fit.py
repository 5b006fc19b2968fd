"""A calibration from subjects whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from . import draw, model
from .calibration import KINDS, Calibration, Quantiles
from .case import Case, Sample, groups_of, samples_of, subjects_of
from .conformal import conformal_quantile, subjects_needed

#: Levels that intervals are made for, as far as there are subjects enough.
LEVELS = (0.5, 0.8, 0.9, 0.95)
#: Borders of the bins of predicted mean, fraction; thin ones are joined.
_MEAN_EDGES = (0.004, 0.015, 0.03, 0.045, 0.055, 0.065, 0.08, 0.095, 0.105, 0.115, 0.125, 0.14)
#: Borders between classes of a region's mean: fluid, grey, white.
REGION_MEANS = (0.03, 0.09)
_LEAST_VOXELS = 2000
_SD_QUANTILES = (0.05, 0.275, 0.5, 0.725, 0.95)
_FOLDS = 5
#: Lesions are few, and share their range of PSR with tissue that the model may know better: a lesion's voxel counts so
#: many times, the first for which their 90 % intervals hold 90 % less the slack.
_LESION_WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0)
_LESION_SLACK = 0.02
#: An SD below this is taken as this: PSR is not known to a millionth.
_LEAST_SD = 1e-6


def fit_calibration(cases: Iterable[Case], seed: int = 0) -> Calibration:
    """Calibrate voxels and region means on subjects that the model was not trained on.

    One case is in memory at a time. Parameters are fitted on four fifths of the subjects and tried on the last,
    fifth by fifth; the conformal quantiles are those of these held-out scores, the parameters stored those of all
    subjects (cross-conformal prediction: Vovk, *Ann Math Artif Intell* 74:9, 2015). So few subjects serve for both.

    Args:
        cases: of 9 subjects or more (90 % intervals), 19 for 95 % intervals.
        seed: of what is drawn: voxels, regions, folds.

    Raises:
        ValueError: too few subjects, or a case that cannot be used; the sentence says why.
    """
    return fit_samples(samples_of(cases, seed), seed)


def fit_samples(samples: Sequence[Sample], seed: int = 0) -> Calibration:
    """As :func:`fit_calibration`, from what :func:`.case.samples_of` kept of the cases."""
    count = len(np.unique(subjects_of(samples)))
    levels = tuple(level for level in LEVELS if count >= subjects_needed(level))
    if 0.9 not in levels:
        raise ValueError(f"Intervals of 90 % take {subjects_needed(0.9)} subjects or more, not {count}; add subjects.")
    needed = subjects_needed(levels[-1])
    edges = _edges(samples, needed)
    for lesion_weight in _LESION_WEIGHTS:
        fitted, in_lesions = _fit(samples, seed, levels, edges, lesion_weight)
        if in_lesions >= 0.9 - _LESION_SLACK:
            break
    return fitted


def _fit(
    samples: Sequence[Sample], seed: int, levels: tuple[float, ...], edges: np.ndarray, lesion_weight: float
) -> tuple[Calibration, float]:
    """A calibration, and what share of lesion voxels its 90 % intervals hold (1 without lesions)."""
    who, group = subjects_of(samples), groups_of(samples)
    count, groups = int(who.max()) + 1, int(group.max()) + 1
    limit, power = _distances(samples), 1.0
    fold_of = (np.random.default_rng((seed, groups)).permutation(groups) % _FOLDS)[group]
    voxel_scores: list[np.ndarray] = [np.empty(0)] * len(samples)
    region_scores: list[np.ndarray] = [np.empty(0)] * len(samples)
    for fold in np.unique(fold_of):
        others = [s for s, of in zip(samples, fold_of) if of != fold]
        fitted = _parameters(others, edges, levels, lesion_weight)
        for i in np.flatnonzero(fold_of == fold).tolist():
            voxel_scores[i], region_scores[i] = voxel_score(fitted, samples[i]), region_score(fitted, samples[i])
    if limit is not None:
        power = _power(samples, voxel_scores, limit)
    fitted = _parameters(samples, edges, levels, lesion_weight)
    fitted = replace(fitted, subjects=count, ood_limit=limit, ood_power=power)
    wide = [fitted.widening(s.ood) for s in samples]
    voxel_scores = [score / w for score, w in zip(voxel_scores, wide)]
    sizes = [len(s.mean) for s in samples]
    subjects, of_group = np.repeat(who, sizes), np.repeat(group, sizes)
    scores, means = np.concatenate(voxel_scores), np.concatenate([s.mean for s in samples])
    weights = np.concatenate([_voxel_weights(s, lesion_weight) for s in samples])
    bins = np.searchsorted(edges, means)
    by_bin = [
        conformal_quantile(scores[bins == k], subjects[bins == k], levels, weights[bins == k], of_group[bins == k])
        for k in range(len(edges) + 1)
    ]
    fitted = replace(
        fitted,
        voxel_quantiles=tuple(zip(*by_bin)),
        quantiles=_region_quantiles(
            samples, [r / w for r, w in zip(region_scores, wide)], levels, subjects_needed(levels[-1])
        ),
    )
    at_90 = fitted.voxel_quantiles[levels.index(0.9)]
    held_there = [
        np.average(score[lesion] <= np.interp(s.mean[lesion], fitted.mean_nodes, at_90), weights=s.weight[lesion])
        for s, score in zip(samples, voxel_scores)
        if (lesion := _in_lesion(s)).any()
    ]
    return fitted, float(np.mean(held_there)) if held_there else 1.0


def _in_lesion(kept: Sample) -> np.ndarray:
    return np.isin(kept.label, draw.TISSUES["lesion"])


def _voxel_weights(kept: Sample, lesion_weight: float) -> np.ndarray:
    return kept.weight * np.where(_in_lesion(kept), lesion_weight, 1.0)


def voxel_score(calibration: Calibration, kept: Sample) -> np.ndarray:
    """|error| in units of the calibrated SD, (N,), before widening."""
    sd = calibration.voxel_sd(kept.mean, kept.sd_local)
    return np.abs(kept.error) / np.maximum(sd, _LEAST_SD)


def region_variance(calibration: Calibration, kept: Sample) -> np.ndarray:
    """Mean local variance of each region, (R,), from the voxels kept of it."""
    mean, sd_local = kept.region_voxels[:, 0], kept.region_voxels[:, 1]
    return calibration.local_variance(mean, calibration.voxel_sd(mean, sd_local)).mean(1)


def region_score(calibration: Calibration, kept: Sample) -> np.ndarray:
    """|error of the mean| in units of its predicted SD, (R,), before widening."""
    variance = region_variance(calibration, kept)
    sd = model.region_sd(calibration.region, kept.region_mean, variance, kept.region_ml, calibration.correlation_ml)
    return np.abs(kept.region_error) / np.maximum(sd, _LEAST_SD)


def _parameters(
    samples: Sequence[Sample], edges: np.ndarray, levels: tuple[float, ...], lesion_weight: float
) -> Calibration:
    """Everything but quantiles and widening; these are 1."""
    scale_sd = math.sqrt(sum(s.scale**2 for s in samples) / len(samples))
    mean, sd_local = (np.concatenate([getattr(s, name) for s in samples]) for name in ("mean", "sd_local"))
    residual = np.concatenate([s.error - s.scale * s.mean for s in samples])
    weights = np.concatenate([_voxel_weights(s, lesion_weight) / s.weight.sum() for s in samples])
    mean_bin = np.searchsorted(edges, mean)
    bins = len(edges) + 1
    totals = np.bincount(mean_bin, weights, bins)
    mean_nodes = np.bincount(mean_bin, weights * mean, bins) / totals
    # Every range of PSR has the same say in where the nodes lie, large or small.
    sd_nodes = _sd_nodes(sd_local, weights / totals[mean_bin])
    gains = model.fit_gain(mean, sd_local, residual, weights, mean_bin, bins, sd_nodes)
    lags = samples[0].lags_mm
    correlation = np.mean([np.interp(lags, s.lags_mm, s.correlation) for s in samples], 0)
    correlation_ml = model.correlation_volume(lags, correlation, min(s.voxel_ml for s in samples))
    one = Quantiles((1.0,), (0.1,), tuple(((1.0,),) for _ in levels))
    fitted = Calibration(
        len(samples),
        levels,
        scale_sd,
        tuple(mean_nodes.tolist()),
        tuple(sd_nodes),
        tuple(map(tuple, gains.tolist())),
        tuple((1.0,) * bins for _ in levels),
        (0.0, 1.0, 0.0, 1.0),
        correlation_ml,
        dict.fromkeys(KINDS, one),
    )
    variance = np.concatenate([region_variance(fitted, s) for s in samples])
    means, errors, volumes = (
        np.concatenate([getattr(s, name) for s in samples]) for name in ("region_mean", "region_error", "region_ml")
    )
    weight = np.concatenate([_region_weights(s) for s in samples])
    region = model.fit_region(means, variance, volumes, errors, weight, correlation_ml, scale_sd)
    return replace(fitted, region=region)


def _edges(samples: Sequence[Sample], needed: int) -> np.ndarray:
    """Borders of the bins of mean, such that each has voxels of ``needed`` subjects and 2000 in all.

    A bin too thin is joined with the next, the last with the one before it.
    """
    bins = len(_MEAN_EDGES) + 1
    counts = np.array([np.bincount(np.searchsorted(_MEAN_EDGES, s.mean), minlength=bins) for s in samples])
    edges: list[float] = []
    who = subjects_of(samples)
    by_subject = np.zeros((int(who.max()) + 1, bins), np.intp)
    np.add.at(by_subject, who, counts)
    gathered = np.zeros(len(by_subject), np.intp)
    for place, column in enumerate(by_subject.T):
        gathered = gathered + column
        enough = gathered.sum() >= _LEAST_VOXELS and (gathered > 0).sum() >= needed
        if enough and place < len(_MEAN_EDGES):
            edges.append(_MEAN_EDGES[place])
            gathered = np.zeros(len(by_subject), np.intp)
        elif not enough and place == len(_MEAN_EDGES):
            edges = edges[:-1]
    return np.array(edges)


def _sd_nodes(sd_local: np.ndarray, weights: np.ndarray) -> tuple[float, ...]:
    """Up to five positions between the 5th and the 95th percentile of the predicted SD; one if it hardly varies."""
    order = np.argsort(sd_local)
    reached = np.cumsum(weights[order])
    nodes = np.interp(np.array(_SD_QUANTILES) * reached[-1], reached, sd_local[order].astype(np.float64))
    nodes = np.maximum(nodes, _LEAST_SD)
    kept = [float(nodes[0])]
    for node in nodes[1:]:
        if node > 1.05 * kept[-1]:
            kept.append(float(node))
    return tuple(kept)


def _size(volumes_ml: np.ndarray) -> np.ndarray:
    return np.searchsorted(draw.SIZES_ML, volumes_ml)


def _region_weights(kept: Sample) -> np.ndarray:
    """Every subject counts the same, and in it every class of size and kind, however many regions it has."""
    _, of, count = np.unique(
        _size(kept.region_ml) + 100 * (kept.region_kind == "lesion"), return_inverse=True, return_counts=True
    )
    return 1.0 / (count[of] * len(count))


def _region_quantiles(
    samples: Sequence[Sample], scores: Sequence[np.ndarray], levels: tuple[float, ...], needed: int
) -> dict[str, Quantiles]:
    """By kind, class of size and, for regions, class of mean; a class of too few subjects has the next wider one's."""
    counts = [len(s.region_mean) for s in samples]
    subject, of_group = np.repeat(subjects_of(samples), counts), np.repeat(groups_of(samples), counts)
    kind, mean, volume = (
        np.concatenate([getattr(s, name) for s in samples]) for name in ("region_kind", "region_mean", "region_ml")
    )
    score, size = np.concatenate(scores), _size(volume)
    weight = np.concatenate([_region_weights(s) for s in samples])
    found = {}
    for one in KINDS:
        which = kind == one
        if np.unique(subject[which]).size < needed:  # no lesions, or in a few subjects only
            which = np.ones(len(kind), bool)
        sizes = [k for k in range(len(draw.SIZES_ML) + 1) if np.unique(subject[which & (size == k)]).size >= needed]
        group = np.searchsorted(REGION_MEANS, mean) if one == "region" else np.zeros(len(mean), np.intp)
        groups = [g for g in np.unique(group[which]) if np.unique(subject[which & (group == g)]).size >= needed]
        cells = []
        for here in [which & (size == k) for k in sizes] or [which]:
            row = []
            for g in groups:
                cell = here & (group == g)
                cell = cell if np.unique(subject[cell]).size >= needed else here
                row.append(conformal_quantile(score[cell], subject[cell], levels, weight[cell], of_group[cell]))
            cells.append(row)
        centres = [float(np.exp(np.median(np.log(volume[which & (size == k)])))) for k in sizes] or [1.0]
        middles = [float(np.median(mean[which & (group == g)])) for g in groups]
        values = tuple(tuple(tuple(cell[i] for cell in row) for row in cells) for i in range(len(levels)))
        found[one] = Quantiles(tuple(centres), tuple(middles), values)
    return found


def _distances(samples: Sequence[Sample]) -> float | None:
    """The 95th percentile of the subjects' distances from the training data; None if not all are known."""
    known = [s.ood for s in samples if s.ood is not None]
    limit = float(np.quantile(known, 0.95)) if len(known) == len(samples) else 0.0
    return limit if limit > 0 else None


def _power(samples: Sequence[Sample], scores: Sequence[np.ndarray], limit: float) -> float:
    """How errors grow with the distance, between 1 and 3: least squares of log RMS score on log distance."""
    size = [math.sqrt(float(np.average(np.minimum(v, 10.0) ** 2, weights=s.weight))) for v, s in zip(scores, samples)]
    x = np.log([max(s.ood or 0.0, 0.05 * limit) for s in samples])
    y = np.log(np.maximum(size, 1e-6))
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x @ y) / (x @ x), 1.0, 3.0)) if x @ x > 1e-12 else 1.0
