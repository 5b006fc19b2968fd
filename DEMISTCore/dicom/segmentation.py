"""Lesions and normal-appearing white matter as a DICOM Segmentation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..errors import InputError
from ..volume import Volume
from .parametric import MAKER, save
from .place import as_dicom_volume, missing_package

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_ALTERED = ("49755003", "SCT", "Morphologically Altered Structure")
_STRUCTURE = ("123037004", "SCT", "Anatomical Structure")
_WHITE = ("389080008", "SCT", "White Matter")
#: Regions in the order of the segments: name, category, type.
SEGMENTS = {
    "lesion": ("MS lesions", _ALTERED, ("52988006", "SCT", "Lesion")),
    "nawm": ("NAWM", _STRUCTURE, _WHITE),
    "nawm_proximal": ("Proximal NAWM", _STRUCTURE, _WHITE),
    "nawm_distal": ("Distal NAWM", _STRUCTURE, _WHITE),
}


def write_segmentation(
    masks: Mapping[str, Volume],
    out: str | os.PathLike[str],
    series: Sequence[Dataset],
    *,
    suggested: bool = False,
    series_number: int = 903,
) -> Path:
    """Write regions as one binary segmentation, a segment each; regions may overlap.

    Args:
        masks: > 0 inside, all on one grid, by region; others than those of :data:`SEGMENTS` are left out, and so are
            empty ones.
        out: file to write; replaced if it is there.
        series: headers of the T1w's series, see :func:`.study.read_series`.
        suggested: lesions were found by the computer and not checked by a person; the segment says so.
        series_number: of the new series.

    Raises:
        InputError: there is nothing to write, the masks lie on different grids, or a package is missing.
    """
    try:
        from highdicom import UID, AlgorithmIdentificationSequence
        from highdicom.seg import Segmentation, SegmentDescription
        from highdicom.sr import CodedConcept
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    known = [(key, masks[key]) for key in SEGMENTS if key in masks and (np.asarray(masks[key].array) > 0).any()]
    if not known:
        raise InputError("There are no lesions and no regions to write; suggest lesions or compute statistics first.")
    grid = known[0][1]
    for key, mask in known:
        if not mask.grid.same_as(grid.grid):
            raise InputError(f"The mask of {SEGMENTS[key][0]} lies on another grid; resample it first.")
    family = CodedConcept("123109", "DCM", "Artificial Intelligence")
    algorithm = AlgorithmIdentificationSequence(name="DEMIST", family=family, version=__version__)
    described = []
    for number, (key, _mask) in enumerate(known, start=1):
        name, category, kind = SEGMENTS[key]
        drawn = key == "lesion" and not suggested
        described.append(
            SegmentDescription(
                number,
                f"{name} (suggested)" if key == "lesion" and suggested else name,
                CodedConcept(*category),
                CodedConcept(*kind),
                "MANUAL" if drawn else "AUTOMATIC",
                None if drawn else algorithm,
            )
        )
    stack = np.stack([np.asarray(mask.array) > 0 for _key, mask in known], axis=-1).astype(np.uint8)
    placed = _with_segments(stack, grid, series[0].FrameOfReferenceUID)
    made = Segmentation(
        list(series),
        placed,
        "BINARY",
        described,
        UID(),
        series_number,
        UID(),
        1,
        **MAKER,
        content_label="REGIONS",
        content_description="Lesions and NAWM, research only",
    )
    made.SeriesDescription = "Lesions and NAWM (research only)"
    return save(made, out)


def _with_segments(stack: np.ndarray, grid: Volume, frame: str) -> object:
    """Masks (X, Y, Z, n) as a volume with a channel for each segment."""
    import highdicom

    placed = as_dicom_volume(stack[..., 0], grid, frame)
    array = np.ascontiguousarray(np.moveaxis(stack, (0, 1, 2), (2, 1, 0)))
    return highdicom.Volume(
        array,
        placed.affine,
        "PATIENT",
        frame_of_reference_uid=frame,
        channels={"SegmentNumber": list(range(1, stack.shape[-1] + 1))},
    )
