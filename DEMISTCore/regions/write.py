"""Regions as files: one label map a viewer can show, its table of labels, the numbered lesions."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..commit import staging
from ..files import write_json
from ..volume import Volume
from .build import Regions
from .settings import REGIONS

#: Labels of ``regions_dseg.nii.gz``. Regions overlap; where they do, the later one is written.
LABELS: dict[int, tuple[str, str]] = {
    1: ("csf", REGIONS["csf"]),
    2: ("grey_matter", REGIONS["grey_matter"]),
    3: ("white_matter", "White matter near lesions, cortex or fluid, not counted as NAWM"),
    4: ("nawm", "NAWM of a brain without lesions"),
    5: ("nawm_distal", REGIONS["nawm_distal"]),
    6: ("nawm_middle", REGIONS["nawm_middle"]),
    7: ("nawm_proximal", REGIONS["nawm_proximal"]),
    8: ("lesion", REGIONS["lesion"]),
    9: ("black_hole", REGIONS["black_hole"]),
}


def write_regions(regions: Regions, folder: str | os.PathLike[str]) -> list[Path]:
    """Write ``regions_dseg.nii.gz`` with ``.tsv`` (BIDS label table) and ``.json`` (settings, notes) beside it.

    With lesions also ``lesions_dseg.nii.gz``: their numbers. Nothing is written without a region.

    Returns:
        The files written.

    Raises:
        InputError: the folder cannot be written to.
    """
    folder = Path(folder)
    labels = label_map(regions)
    if labels is None:
        return []
    with staging(folder) as (hidden,):
        paths = _write(regions, labels, hidden)
    return [folder / path.name for path in paths]


def _write(regions: Regions, labels: Volume, folder: Path) -> list[Path]:
    lesions = regions.lesions
    paths = [labels.write(folder / "regions_dseg.nii.gz", description="DEMIST regions")]
    paths += [folder / "regions_dseg.tsv", folder / "regions_dseg.json"]
    suggested = lesions is not None and lesions.suggested
    rows = ["index\tname\tkey"]
    for index, (key, name) in LABELS.items():
        mark = " (suggested)" if suggested and key in ("lesion", "black_hole") else ""
        rows.append(f"{index}\t{name}{mark}\t{key}")
    paths[1].write_text("\n".join(rows) + "\n", encoding="utf-8", errors="backslashreplace")
    content = {
        "settings": asdict(regions.settings),
        "lesions": None
        if lesions is None
        else {
            "count": lesions.count,
            "volume_ml": float(np.count_nonzero(lesions.numbers.array) * labels.grid.voxel_volume_ml),
            "suggested": lesions.suggested,
            "note": lesions.note,
            "black_holes": list(lesions.black_holes),
        },
        "volume_ml": {
            key: float(np.count_nonzero(mask.array) * mask.grid.voxel_volume_ml) for key, mask in regions.masks.items()
        },
        "notes": list(regions.notes),
    }
    write_json(paths[2], content)
    if lesions is not None and lesions.count:
        note = "DEMIST lesions, suggested" if suggested else "DEMIST lesions"
        paths.append(lesions.numbers.write(folder / "lesions_dseg.nii.gz", description=note))
    return paths


def label_map(regions: Regions) -> Volume | None:
    """All regions in one map of :data:`LABELS` (uint8); None if there is no region."""
    if not regions.masks:
        return None
    first = next(iter(regions.masks.values()))
    result = np.zeros(first.shape, np.uint8)
    for index, (key, _) in LABELS.items():
        if key in regions.masks:
            result[regions.masks[key].array > 0] = index
    return first.grid.volume(result)
