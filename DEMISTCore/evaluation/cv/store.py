"""Results on disk: a scan's truth once, and each method's numbers, voxels and slice of it; whole, or made again."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...files import atomic_path, atomic_paths, write_json
from ...metrics import json_ready
from ...schema import read_json
from ...volume import Volume
from ..cases import Case
from ..figures import brain_box, levels
from ..methods.method import Outcome
from .masks import ScanMasks
from .numbers import numbers, region_rows

_FORMAT = 1
_BROKEN = (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error)


def slug(name: str) -> str:
    """A row's name as part of a file name; names alike but for signs stay apart."""
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def fingerprint(case: Case, settings: Mapping[str, Any]) -> str:
    """What a result depends on: the scan's files, how it is prepared and compared, the method's weights."""
    keys = {
        "format": _FORMAT,
        "inputs": case.digest,
        "grid": case.grid_name,
        "preprocess": case.preprocess,
        "spacing": case.spacing,
        "multiple": case.multiple,
        "aligned": case.already_aligned,
        "method": settings,
    }
    return hashlib.sha256(repr(sorted((k, repr(v)) for k, v in keys.items())).encode()).hexdigest()


def read_result(folder: Path, scan: str, row: str, key: str) -> dict[str, Any] | None:
    """A stored result, if it is there, whole, and of this fingerprint; else None."""
    try:
        content = read_json(folder / scan / f"{slug(row)}.json")
        if content["fingerprint"] != key or content["row"]["method"] != row:
            return None
        arrays(folder, scan, row)
        return _with_nan(content)
    except _BROKEN:
        return None


def write_result(
    folder: Path,
    case: Case,
    masks: ScanMasks,
    row: str,
    outcome: Outcome,
    key: str,
    who: Mapping[str, Any],
    cost: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure a map and store what is told of it; returns what :func:`read_result` would."""
    content = {
        "fingerprint": key,
        "row": {**who, "method": row, **numbers(case, masks, outcome)},
        "regions": region_rows(case, masks, outcome),
        "cost": dict(cost),
    }
    home = folder / case.name
    level, across, along = _slice(case)
    flat = outcome.psr.ravel()
    with atomic_paths([home / f"{slug(row)}.npz", home / f"{slug(row)}.json"]) as (voxels, table):
        np.savez_compressed(
            voxels,
            psr=outcome.psr[across, along, level].astype(np.float16),
            **{f"at_{name}": flat[where].astype(np.float32) for name, where in masks.drawn.items()},
        )
        write_json(table, json_ready(content))
    return _with_nan(read_json(home / f"{slug(row)}.json"))


def write_scan(folder: Path, case: Case, masks: ScanMasks) -> None:
    """The truth's voxels and slices of a scan, once; those that are there and whole stay."""
    path = folder / case.name / "scan.npz"
    if scan_arrays(folder, case.name) is not None:
        return
    level, across, along = _slice(case)
    affine = case.prepared.grid.affine
    images = {
        name: Volume(volume.array, affine).resampled_to(case.grid, "linear").array
        for name, volume in (("t1w", case.prepared.t1w), ("flair", case.prepared.flair))
    }
    images |= {"truth": case.truth, "mask": case.mask, "brain": case.brain, "lesions": masks.groups["lesions"]}
    flat = case.truth.ravel()
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            aspect=case.grid.spacing[1] / case.grid.spacing[0],
            # As numpy's stub has it, any of the names might be allow_pickle.
            **{name: array[across, along, level].astype(np.float16) for name, array in images.items()},  # type: ignore[arg-type]
            **{f"at_{name}": flat[where].astype(np.float32) for name, where in masks.drawn.items()},
        )


def arrays(folder: Path, scan: str, row: str) -> dict[str, np.ndarray]:
    """Slice (``psr``) and voxels (``at_lesion`` and so on) of a method's map."""
    return _load(folder / scan / f"{slug(row)}.npz")


def scan_arrays(folder: Path, scan: str) -> dict[str, np.ndarray] | None:
    """The same of the truth, with T1w, FLAIR, lesions and masks; None if they are not there or damaged."""
    try:
        return _load(folder / scan / "scan.npz")
    except _BROKEN:
        return None


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _slice(case: Case) -> tuple[int, slice, slice]:
    """The slice with most lesion, else with most brain, and the box of the brain in it."""
    level = levels(case.lesions if case.lesions.any() else case.mask, 1)[0]
    return level, *brain_box(case.brain)


def _with_nan(content: dict[str, Any]) -> dict[str, Any]:
    """JSON's null as NaN in the numbers, so that what is read equals what was measured."""

    def numbers_of(row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: math.nan if value is None else value for key, value in row.items()}

    return {**content, "row": numbers_of(content["row"]), "regions": [numbers_of(r) for r in content["regions"]]}
