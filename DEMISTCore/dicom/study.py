"""The series that a result belongs to: whose, of which study, in which frame of reference."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..volume import Volume
from .place import missing_package

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: What every DICOM object says of patient and study, and what it says where a scan's files leave it out.
_SAID = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
#: Without these nobody knows where an image lies.
_PLACE = ("FrameOfReferenceUID", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")


def read_series(source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Dataset]:
    """The headers of one series, without pixels, in the order of their instance numbers.

    Args:
        source: a folder that holds nothing but one series, or its files.

    Raises:
        InputError: there is no DICOM file, there are several series, or they do not say where they lie; the sentence
            says what to do.
    """
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    if isinstance(source, (str, os.PathLike)):
        place = Path(source)
        files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        called = str(place)
    else:
        files = [Path(path) for path in source]
        called = str(files[0].parent) if files else "The list of files"
    found = []
    for path in files:
        try:
            found.append(dcmread(path, stop_before_pixels=True))
        except (InvalidDicomError, OSError):
            continue
    found = [header for header in found if "SeriesInstanceUID" in header and "StudyInstanceUID" in header]
    if not found:
        raise InputError(f"{called} holds no DICOM images; give the folder of the T1w's series.")
    if len({str(header.SeriesInstanceUID) for header in found}) > 1:
        raise InputError(f"{called} holds several series; give the folder or the files of the T1w's series alone.")
    if any(name not in header for header in found for name in _PLACE):
        raise InputError(f"The images in {called} do not say where they lie; give a series of ordinary MR images.")
    return [_complete(header) for header in sorted(found, key=lambda header: int(header.get("InstanceNumber") or 0))]


def made_up(volume: Volume, name: str = "Anonymous") -> list[Dataset]:
    """The header of a study of its own, for a map whose scans are no DICOM; the patient is called ``name``.

    It has the grid's size, so that it can stand for a series of the T1w.
    """
    try:
        from pydicom.dataset import Dataset
        from pydicom.uid import MRImageStorage, generate_uid
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, generate_uid()
    header.StudyInstanceUID, header.SeriesInstanceUID = generate_uid(), generate_uid()
    header.FrameOfReferenceUID, header.PositionReferenceIndicator = generate_uid(), ""
    header.Modality, header.InstanceNumber, header.SeriesNumber = "MR", 1, 1
    header.PatientName, header.PatientID = f"{name}^", name  # the caret: a name of one part
    header.Columns, header.Rows = volume.shape[0], volume.shape[1]
    header.ImageOrientationPatient, header.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    header.PixelSpacing, header.SliceThickness = [1, 1], 1
    return [_complete(header)]


def _complete(header: Any) -> Dataset:
    """A copy in which everything stands that a result takes over, empty where the scan leaves it out."""
    header = copy.copy(header)
    for name in _SAID:
        if name not in header:
            setattr(header, name, "")
    if "SliceThickness" not in header:
        header.SliceThickness = 1
    return header
