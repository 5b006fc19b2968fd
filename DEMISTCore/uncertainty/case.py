"""A subject whose truth is known, and the samples that a calibration keeps of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from . import draw

#: Voxels kept of a stratum (range of predicted mean, lesion or not).
_PER_STRATUM = 2500
_STRATUM = 0.01
_STRATA = 25
#: Voxels kept of a region: its mean and error are exact, the mean of its local variance is theirs.
PER_REGION = 256
_LAGS = 12


@dataclass(frozen=True, eq=False)
class Case:
    """One subject: what the model said, and what is true. All maps on one grid of about cubic voxels.

    Attributes:
        mean: (X, Y, Z) predicted PSR, fraction.
        sd_local: (X, Y, Z) predicted local SD, not calibrated, fraction.
        truth: (X, Y, Z) true PSR, fraction.
        labels: (X, Y, Z) tissue codes, see :data:`.draw.TISSUES`.
        mask: (X, Y, Z) not 0 in the brain.
        voxel_ml: volume of a voxel, mL.
        ood: distance from the training data, None if the model gives none.
        subject: whose scan it is, where there are several of one person: these count as one. None: somebody else's
            than all others.
        group: what several subjects have in common beyond chance, such as the anatomy that simulated ones were drawn
            from. None: nothing.
    """

    mean: np.ndarray
    sd_local: np.ndarray
    truth: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    voxel_ml: float
    ood: float | None = None
    subject: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.mean)
        if len(shape) != 3:
            raise ValueError(f"The maps of a case are 3-D, not {len(shape)}-D.")
        for name in ("sd_local", "truth", "labels", "mask"):
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(f"A case's {name} has shape {np.shape(getattr(self, name))}, its mean {shape}.")
        if not self.voxel_ml > 0:
            raise ValueError(f"A voxel's volume must be above 0 mL, not {self.voxel_ml}.")
        if self.ood is not None and not (np.isfinite(self.ood) and self.ood >= 0):
            raise ValueError(f"A distance from the training data is a number of at least 0, not {self.ood}.")


@dataclass(frozen=True, eq=False)
class Sample:
    """What is kept of a :class:`Case`: a few ten thousand voxels and some hundred regions, float32.

    Attributes:
        mean, sd_local, error, label: (N,) of the voxels kept; error is mean minus truth.
        weight: (N,) how many voxels of the brain each stands for.
        scale: the relative error that the whole brain shares, sum m e / sum m^2.
        lags_mm, correlation: correlation of local errors by distance.
        voxel_ml, ood, subject, group: of the case.
        region_kind, region_mean, region_error, region_ml: (R,) of each region.
        region_voxels: (R, 2, PER_REGION) mean and local SD of voxels drawn of each, with repeats in small ones.
    """

    mean: np.ndarray
    sd_local: np.ndarray
    error: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    scale: float
    lags_mm: np.ndarray
    correlation: np.ndarray
    voxel_ml: float
    ood: float | None
    region_kind: np.ndarray
    region_mean: np.ndarray
    region_error: np.ndarray
    region_ml: np.ndarray
    region_voxels: np.ndarray
    subject: str | None = None
    group: str | None = None


def groups_of(samples: Sequence[Sample]) -> np.ndarray:
    """(n,) number of the group of each, from 0 in order of appearance; a subject without one is a group of its own.

    One group alone tells nothing of others: then every subject is its own.
    """
    known: dict[object, int] = {}
    who = subjects_of(samples)
    names = (int(of) if kept.group is None else f"group {kept.group}" for kept, of in zip(samples, who))
    numbers = np.array([known.setdefault(name, len(known)) for name in names], np.intp)
    return numbers if len(known) > 1 else who


def subjects_of(samples: Sequence[Sample]) -> np.ndarray:
    """(n,) number of the subject of each, from 0 in order of appearance."""
    known: dict[object, int] = {}
    names = (number if kept.subject is None else f"subject {kept.subject}" for number, kept in enumerate(samples))
    return np.array([known.setdefault(name, len(known)) for name in names], np.intp)


def samples_of(cases: Iterable[Case], seed: int = 0) -> list[Sample]:
    """:func:`sample` of every case, none of which is held while the next one is made."""
    found: list[Sample] = []
    for case in cases:
        found.append(sample(case, np.random.default_rng((seed, len(found)))))
        del case
    return found


def sample(case: Case, rng: np.random.Generator) -> Sample:
    """Boil a case down. Voxels without finite values in all maps are left out.

    Raises:
        ValueError: the mask holds no usable voxel, the prediction is 0 throughout, or an SD is negative.
    """
    mean, sd, truth = (np.asarray(a, np.float32) for a in (case.mean, case.sd_local, case.truth))
    inside = (np.asarray(case.mask) != 0) & np.isfinite(mean) & np.isfinite(sd) & np.isfinite(truth)
    index = np.flatnonzero(inside)
    if not index.size:
        raise ValueError("A case's mask holds no voxel with finite values.")
    m, s, e = mean.ravel()[index], sd.ravel()[index], (mean - truth).ravel()[index]
    if (s < 0).any():
        raise ValueError("A case's predicted SD is negative somewhere.")
    squares = float(np.square(m, dtype=np.float64).sum())
    if not squares > 0:
        raise ValueError("A case's predicted PSR is 0 throughout.")
    scale = float((m * e).sum(dtype=np.float64)) / squares
    labels = np.where(inside, np.asarray(case.labels), 0)
    label = labels.ravel()[index].astype(np.uint8)

    stratum = np.clip((m / _STRATUM).astype(np.intp), 0, _STRATA - 1)
    stratum += _STRATA * np.isin(label, draw.TISSUES["lesion"])
    order = rng.permutation(index.size)
    order = order[np.argsort(stratum[order], kind="stable")]
    count = np.bincount(stratum, minlength=2 * _STRATA)
    place = np.arange(index.size) - np.repeat(np.cumsum(count) - count, count)
    kept = order[place < _PER_STRATUM]
    of = stratum[kept]
    weight = (count / np.maximum(np.minimum(count, _PER_STRATUM), 1))[of]

    kinds, means, errors, sizes, voxels = [], [], [], [], []
    flat_mean, flat_sd, flat_truth = mean.ravel(), sd.ravel(), truth.ravel()
    for kind, region in draw.regions(labels, case.voxel_ml, rng):
        values = flat_mean[region].astype(np.float64)
        kinds.append(kind)
        means.append(values.mean())
        errors.append(values.mean() - flat_truth[region].mean(dtype=np.float64))
        sizes.append(region.size * case.voxel_ml)
        few = np.resize(region, PER_REGION) if region.size <= PER_REGION else rng.choice(region, PER_REGION, False)
        voxels.append(np.stack([flat_mean[few], flat_sd[few]]))
    lags, correlation = _correlation(np.where(inside, mean - truth - scale * mean, 0), sd, inside, case.voxel_ml)
    return Sample(
        m[kept],
        s[kept],
        e[kept],
        label[kept],
        weight,
        scale,
        lags,
        correlation,
        case.voxel_ml,
        case.ood,
        np.array(kinds),
        np.array(means),
        np.array(errors),
        np.array(sizes),
        np.array(voxels, np.float32).reshape(-1, 2, PER_REGION),
        case.subject,
        case.group,
    )


def _correlation(
    residual: np.ndarray, sd: np.ndarray, inside: np.ndarray, voxel_ml: float
) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of local errors, in units of their SD and cut at 4, along the axes by distance in mm, from 0."""
    z = np.where(inside, residual / np.maximum(sd, 1e-6), 0).astype(np.float32)
    spread = max(float(np.median(np.abs(z[inside]))) * 1.4826, 1e-12)
    z = np.clip(z / spread, -4, 4)
    z = np.where(inside, z - z[inside].mean(), 0).astype(np.float32)
    variance = float(np.square(z[inside], dtype=np.float64).mean())
    step = (1000 * voxel_ml) ** (1 / 3)
    found = [1.0]
    for lag in range(1, _LAGS + 1):
        total, pairs = 0.0, 0
        for axis in range(3):
            if z.shape[axis] <= lag:
                continue
            here, there = (np.moveaxis(z, axis, 0)[part] for part in (slice(lag, None), slice(None, -lag)))
            both = np.moveaxis(inside, axis, 0)
            total += float((here * there).sum(dtype=np.float64))  # z is 0 outside
            pairs += int((both[lag:] & both[:-lag]).sum())
        found.append(total / max(pairs, 1) / variance if variance > 0 else 0.0)
    return step * np.arange(_LAGS + 1), np.array(found)
