"""PSR by region and by lesion: size, mean and its interval, spread, quantiles, how far seeds lie apart."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..files import atomic_path
from ..volume import Volume

if TYPE_CHECKING:
    from ..regions import Regions
    from .intervals import Intervals

#: Columns of the table, in order. PSR and its deviations are fractions.
COLUMNS = {
    "region": "key of the region; lesion for the row of each single lesion, too",
    "lesion": "number of the lesion, as in the numbered mask; empty for whole regions",
    "name": "for people; says if lesions were suggested, not drawn",
    "black_hole": "True for a lesion that is a T1 black hole; empty for whole regions",
    "voxels": "voxels of the region",
    "missing": "voxels of it without a finite PSR value; the numbers after volume_ml leave them out",
    "volume_ml": "volume of all its voxels in mL",
    "mean": "mean PSR",
    "mean_ci90_low": "lower end of the 90 % interval of the true mean, calibrated as the mean of a region of its size; "
    "empty if the model has no calibration",
    "mean_ci90_high": "upper end of that interval",
    "sd": "standard deviation of PSR over the region's voxels (n - 1)",
    "median": "median PSR",
    "iqr": "interquartile range of PSR, p75 minus p25",
    "p5": "5th percentile of PSR, linear between order statistics",
    "p25": "25th percentile of PSR",
    "p75": "75th percentile of PSR",
    "p95": "95th percentile of PSR",
    "min": "smallest PSR",
    "max": "largest PSR",
    "uncertainty": "mean of the uncertainty map: of the calibrated SD of a voxel's error, or, of a model without "
    "calibration, of the voxel-wise SD over seeds (the SD of the region's mean over seeds is at most that); for the "
    "error of the mean see mean_ci90_low",
    "seed_sd": "standard deviation (n - 1) over seeds of the region's mean: how far the model's own samples lie apart, "
    "no error bar; needs the maps of single seeds",
}


def region_table(
    psr: Volume,
    regions: Regions,
    uncertainty: Volume | None = None,
    seeds: Sequence[Volume] | None = None,
    intervals: Intervals | None = None,
) -> list[dict[str, Any]]:
    """One row per region, then one per lesion, with the keys of :data:`COLUMNS`.

    A number that cannot be had is NaN (the SD of one voxel, everything of a region without finite PSR); one that was
    not asked for is None (no uncertainty map, no calibration, no seeds, no lesion number).

    The uncertainty map alone does not tell how far a *mean* moves from seed to seed: that depends on how voxels move
    together, and no map of standard deviations says so. What is certain is an upper bound: the standard deviation of a
    mean is at most the mean of the standard deviations (the triangle inequality), equal if all voxels move as one.
    Independent voxels would make it smaller by the root of their number; synthesized voxels are not independent. The
    maps of single seeds give the number itself.

    Args:
        psr: the map, fraction.
        regions: masks on the map's grid.
        uncertainty: per voxel, on that grid: the calibrated SD of the error if there are ``intervals``, else the
            standard deviation over seeds (ddof 1).
        seeds: the maps of single seeds, two or more, on that grid; without ``uncertainty``, that is computed from them.
        intervals: how the model was calibrated; takes ``uncertainty``.

    Raises:
        InputError: something lies on another grid, there is one seed only, or intervals without an uncertainty map.
    """
    from ..regions import REGIONS

    seeds = list(seeds or ())
    if len(seeds) == 1:
        raise InputError("The spread from seed to seed needs the maps of two seeds or more; give another one.")
    if intervals is not None and uncertainty is None:
        raise InputError("Intervals of means take the uncertainty map that was made with the PSR map; give it, too.")
    named = [("uncertainty map", uncertainty), *((f"map of seed {i + 1}", s) for i, s in enumerate(seeds))]
    for name, volume in named:
        if volume is not None and not volume.grid.same_as(psr.grid):
            raise InputError(f"The {name} does not lie on the PSR map's grid; resample it first.")
    if uncertainty is None and seeds:
        uncertainty = psr.with_array(np.std([s.array for s in seeds], axis=0, ddof=1, dtype=np.float64))
    values = psr.array.ravel()
    sd = None if uncertainty is None else uncertainty.array.ravel()
    maps = [s.array.ravel() for s in seeds]
    millilitres = psr.grid.voxel_volume_ml
    rows = []
    for start, index in pieces(psr, regions, REGIONS):
        here = values[index].astype(np.float64)
        row = {**start, "voxels": int(index.size), "missing": int((~np.isfinite(here)).sum())}
        row["volume_ml"] = float(index.size * millilitres)
        row |= describe(here)
        if intervals is not None and sd is not None:
            row["mean_ci90_low"], row["mean_ci90_high"] = intervals.of(row, here, sd[index], millilitres)
        else:
            row["mean_ci90_low"] = row["mean_ci90_high"] = None
        row["uncertainty"] = None if sd is None else _mean(sd[index])
        row["seed_sd"] = float(np.std([_mean(m[index]) for m in maps], ddof=1)) if maps else None
        rows.append(row)
    return rows


def describe(values: np.ndarray) -> dict[str, float]:
    """Mean, SD (n - 1), median, IQR, percentiles (5, 25, 75, 95), minimum and maximum of the finite values.

    >>> describe(np.array([0.1, 0.2, 0.3, np.nan]))["median"]
    0.2
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return dict.fromkeys(("mean", "sd", "median", "iqr", "p5", "p25", "p75", "p95", "min", "max"), math.nan)
    p5, p25, median, p75, p95 = (float(v) for v in np.percentile(values, (5, 25, 50, 75, 95)))
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if values.size > 1 else math.nan,
        "median": median,
        "iqr": p75 - p25,
        "p5": p5,
        "p25": p25,
        "p75": p75,
        "p95": p95,
        "min": float(values.min()),
        "max": float(values.max()),
    }


def write_table(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = tuple(COLUMNS)) -> Path:
    """Write rows as CSV, or as TSV (missing values ``n/a``, as BIDS wants it) if ``path`` ends in ``.tsv``."""
    tabs = path.suffix == ".tsv"
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream, delimiter="\t" if tabs else ",", lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(name), "n/a" if tabs else "") for name in columns])
    return path


def pieces(psr: Volume, regions: Regions, names: dict[str, str]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """The first columns of each row, and the flat indices of its voxels. The indices are (n,)."""
    lesions = regions.lesions
    mark = " (suggested)" if lesions is not None and lesions.suggested else ""
    for key in (*(k for k in names if k in regions.masks), *(k for k in regions.masks if k not in names)):
        mask = regions.masks[key]
        _same_grid(mask, psr, f"{names.get(key, key)} mask")
        index = np.flatnonzero(mask.array)
        if index.size:
            name = names.get(key, key) + (mark if key in ("lesion", "black_hole") else "")
            yield {"region": key, "lesion": None, "name": name, "black_hole": None}, index
    if lesions is None or not lesions.count:
        return
    _same_grid(lesions.numbers, psr, "numbered lesion mask")
    numbers = lesions.numbers.array.ravel()
    index = np.flatnonzero(numbers)
    index = index[np.argsort(numbers[index], kind="stable")]
    present, first = np.unique(numbers[index], return_index=True)
    for number, voxels in zip(present, np.split(index, first[1:])):
        hole = int(number) in lesions.black_holes
        yield {"region": "lesion", "lesion": int(number), "name": f"Lesion {number}{mark}", "black_hole": hole}, voxels


def _same_grid(mask: Volume, psr: Volume, name: str) -> None:
    if not mask.grid.same_as(psr.grid):
        raise InputError(f"The {name} does not lie on the PSR map's grid; resample it first.")


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean(dtype=np.float64)) if values.size else math.nan


def _cell(value: Any, missing: str) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return missing
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
