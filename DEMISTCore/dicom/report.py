"""The table by region as a DICOM Structured Report: TID 1500, Measurement Report, one group per segment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError
from ..schema import finite
from .parametric import MAKER, QUANTITIES, save
from .place import missing_package
from .segmentation import SEGMENTS

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Columns of the table that are told, by how they are derived (code and meaning, SNOMED CT).
_DERIVED = {
    "mean": ("373098007", "Mean"),
    "sd": ("386136009", "Standard Deviation"),
    "median": ("373099004", "Median"),
    "min": ("255605001", "Minimum"),
    "max": ("56851009", "Maximum"),
}


def write_report(
    rows: Sequence[Mapping[str, Any]],
    out: str | os.PathLike[str],
    series: Sequence[Dataset],
    segmentation: str | os.PathLike[str],
    *,
    suggested: bool = False,
    series_number: int = 904,
) -> Path:
    """Write volume and PSR (mean with its uncertainty, SD, median, smallest, largest) of each segment.

    Args:
        rows: of the statistics table, see :data:`DEMISTCore.statistics.table.COLUMNS`; those of regions that are no
            segment, and those of single lesions, are left out: a report refers to what it measured.
        out: file to write; replaced if it is there.
        series: headers of the T1w's series, see :func:`.study.read_series`.
        segmentation: the file that :func:`.write_segmentation` wrote of the same regions.
        suggested: lesions were not checked by a person; their group says so.
        series_number: of the new series.

    Raises:
        InputError: no row is about a segment, or a package is missing.
    """
    try:
        from highdicom import UID, sr
        from pydicom import dcmread
        from pydicom.sr.codedict import codes
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    regions = dcmread(segmentation)
    numbers = {str(segment.SegmentLabel): int(segment.SegmentNumber) for segment in regions.SegmentSequence}
    whole = {row["region"]: row for row in rows if not row.get("lesion")}
    groups = []
    for key, (label, _category, kind) in SEGMENTS.items():
        label = f"{label} (suggested)" if key == "lesion" and suggested else label
        if key not in whole or label not in numbers:
            continue
        groups.append(
            sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(uid=UID(), identifier=label),
                referenced_segment=sr.ReferencedSegment.from_segmentation(regions, numbers[label]),
                finding_type=sr.CodedConcept(*kind),
                finding_sites=[sr.FindingSite(sr.CodedConcept("12738006", "SCT", "Brain"))],
                algorithm_id=sr.AlgorithmIdentification("DEMIST (synthesized PSR, research only)", __version__),
                measurements=_measurements(sr, whole[key]),
            )
        )
    if not groups:
        raise InputError("The table has no row about a region of the segmentation; compute the statistics first.")
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=UID(), name="DEMIST", manufacturer_name=MAKER["manufacturer"], model_name=MAKER["manufacturer_model_name"]
    )
    context = sr.ObservationContext(
        observer_device_context=sr.ObserverContext(codes.DCM.Device, observer_identifying_attributes=device)
    )
    content = sr.MeasurementReport(
        observation_context=context,
        procedure_reported=sr.CodedConcept("113091000", "SCT", "Magnetic resonance imaging"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    made = sr.ComprehensiveSR(
        [regions, *series],
        content[0],
        UID(),
        series_number,
        UID(),
        1,
        manufacturer=MAKER["manufacturer"],
        is_complete=True,
    )
    made.SeriesDescription = "PSR by region (synthesized, research only)"
    return save(made, out)


def _measurements(sr: Any, row: Mapping[str, Any]) -> list[Any]:
    """Volume and PSR of one row; what is not known is left out.

    The 90 % interval of the mean is told as DICOM tells one: how far the true value may lie above and below.
    """
    psr, none = sr.CodedConcept(*QUANTITIES["psr"][0]), sr.CodedConcept("1", "UCUM", "no units")
    found = []
    if finite(row.get("volume_ml")):
        volume, millilitre = sr.CodedConcept("118565006", "SCT", "Volume"), sr.CodedConcept("mL", "UCUM", "milliliter")
        found.append(sr.Measurement(volume, float(row["volume_ml"]), millilitre))
    for column, (code, meaning) in _DERIVED.items():
        if not finite(row.get(column)):
            continue
        reach = None
        if column == "mean" and finite(row.get("mean_ci90_low")) and finite(row.get("mean_ci90_high")):
            reach = sr.MeasurementProperties(
                upper_measurement_uncertainty=float(row["mean_ci90_high"]) - float(row["mean"]),
                lower_measurement_uncertainty=float(row["mean"]) - float(row["mean_ci90_low"]),
            )
        derived = sr.CodedConcept(code, "SCT", meaning)
        found.append(sr.Measurement(psr, float(row[column]), none, derivation=derived, properties=reach))
    return found
