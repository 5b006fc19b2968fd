"""Everything that there is of one subject, written as DICOM into a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..volume import Volume
from .parametric import write_parametric_map
from .report import write_report
from .segmentation import write_segmentation
from .study import made_up, read_series


def export(
    folder: str | os.PathLike[str],
    *,
    psr: Volume,
    uncertainty: Volume | None = None,
    masks: Mapping[str, Volume] | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    series: Any = None,
    suggested: bool = False,
    provenance: Mapping[str, Any] | None = None,
    patient: str = "Anonymous",
) -> dict[str, Path]:
    """Write ``psr.dcm``; ``psr_uncertainty.dcm``, ``regions.dcm`` and ``report.dcm`` where there is something to write.

    Args:
        folder: made if need be.
        psr, uncertainty: maps, fractions.
        masks: by region, see :func:`.write_segmentation`.
        rows: of the statistics table, for the report about the regions in ``masks``.
        series: folder or files of the T1w's DICOM series; None: a study of its own, of ``patient``.
        suggested: the lesions were not checked by a person.
        provenance: of the map.
        patient: name and number where there is no series.

    Returns:
        What was written, by kind: ``psr``, ``uncertainty``, ``regions``, ``report``.

    Raises:
        InputError: something cannot be written as DICOM; the sentence says what to do.
    """
    headers = made_up(psr, patient) if series is None else read_series(series)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    written = {"psr": write_parametric_map(psr, place / "psr.dcm", headers, provenance=provenance)}
    if uncertainty is not None:
        written["uncertainty"] = write_parametric_map(
            uncertainty,
            place / "psr_uncertainty.dcm",
            headers,
            kind="uncertainty",
            provenance=provenance,
            series_number=902,
        )
    if masks and any((mask.array > 0).any() for mask in masks.values()):
        written["regions"] = write_segmentation(masks, place / "regions.dcm", headers, suggested=suggested)
        if rows:
            written["report"] = write_report(
                rows, place / "report.dcm", headers, written["regions"], suggested=suggested
            )
    return written
