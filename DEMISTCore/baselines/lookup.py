"""The simplest baselines: one PSR value per tissue, looked up from the true segmentation.

*Population look-up*: the mean of each tissue over a training cohort's truth. It knows the new subject's anatomy and
lesions exactly but nothing of how much myelin they hold. *Own means*: the subject's own true tissue means, an oracle
that no method without the truth can use; what it misses is the variation inside a tissue.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import write_json
from ..schema import read_json

Means = dict[int, float]


def tissue_means(psr: np.ndarray, labels: np.ndarray) -> Means:
    """Mean PSR of each label but 0 that has voxels.

    Both arrays are of one shape; PSR is a fraction.

    >>> tissue_means(np.array([0.0, 0.125, 0.25, 0.0625]), np.array([0, 3, 3, 2]))
    {2: 0.0625, 3: 0.1875}
    """
    labels = np.asarray(labels)
    sums = np.bincount(labels.ravel(), np.asarray(psr, np.float64).ravel())
    counts = np.bincount(labels.ravel())
    return {int(k): float(sums[k] / counts[k]) for k in np.flatnonzero(counts) if k}


def population_means(subjects: Iterable[Mapping[int, float]]) -> Means:
    """Mean over subjects of their tissue means.

    Every subject counts the same; a tissue that some lack is averaged over those who have it.

    Raises:
        ValueError: no subjects.
    """
    collected: dict[int, list[float]] = {}
    for means in subjects:
        for label, value in means.items():
            collected.setdefault(label, []).append(value)
    if not collected:
        raise ValueError("There is no subject to take tissue means from.")
    return {label: float(np.mean(values)) for label, values in sorted(collected.items())}


def look_up(means: Mapping[int, float], labels: np.ndarray) -> np.ndarray:
    """The map (float32) that has each label's mean, 0 where the label is 0 or unknown to ``means``.

    Map and labels are of one shape; PSR as fraction.
    """
    table = np.zeros(int(max(np.max(labels), *means, 0)) + 1, np.float32)
    for label, value in means.items():
        table[label] = value
    table[0] = 0
    return table[np.asarray(labels)]


def cohort_means(truths: Mapping[str, tuple[Path, Path | None]], cache: str | Path | None = None) -> dict[str, Means]:
    """Tissue means of each subject of a cohort; ``truths`` gives (PSR map, segmentation) by subject.

    Args:
        truths: files by subject.
        cache: JSON file that keeps the means of files that have not changed since (by size and time).

    Raises:
        InputError: a subject has no segmentation, it lies on another grid than its map, or a file cannot be read.
    """
    from ..volume import Volume

    known: dict[str, dict[str, float]] = {}
    if cache is not None and Path(cache).is_file():
        try:
            known = {
                key: {str(int(k)): float(v) for k, v in means.items()} for key, means in read_json(Path(cache)).items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            known = {}  # a damaged cache is made again
    result, found = {}, {}
    for subject, (psr_path, labels_path) in truths.items():
        if labels_path is None:
            raise InputError(f"{psr_path} has no tissue segmentation (*_dseg) beside it; the look-up needs one.")
        key = json.dumps([_identity(psr_path), _identity(labels_path)])
        if key not in known:
            psr, labels = Volume.read(psr_path), Volume.read(labels_path)
            if not psr.grid.same_as(labels.grid):
                raise InputError(f"{labels_path} does not lie on the grid of {psr_path}; resample it.")
            means = tissue_means(psr.array, labels.array.round().astype(np.int16))
            known[key] = {str(label): mean for label, mean in means.items()}
        found[key] = known[key]
        result[subject] = {int(label): mean for label, mean in known[key].items()}
    if cache is not None:
        write_json(cache, found)
    return result


def _identity(path: Path) -> list[str | int]:
    try:
        told = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    return [str(path.resolve()), told.st_size, told.st_mtime_ns]
