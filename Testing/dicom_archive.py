"""Small DICOM studies as a hospital's archive has them: a file a slice, folders and names that say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cohort_data import head
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

MM = 6.0
MPRAGE: dict[str, Any] = {
    "SeriesDescription": "t1_mprage_sag_p2_iso",
    "SeriesNumber": 3,
    "ScanningSequence": ["GR", "IR"],
    "EchoTime": 2.3,
    "RepetitionTime": 2300.0,
    "InversionTime": 900.0,
    "MRAcquisitionType": "3D",
}
FLAIR: dict[str, Any] = {
    "SeriesDescription": "t2_space_dark-fluid_sag",
    "SeriesNumber": 5,
    "ScanningSequence": ["SE", "IR"],
    "EchoTime": 388.0,
    "RepetitionTime": 5000.0,
    "InversionTime": 1800.0,
    "MRAcquisitionType": "3D",
}


def brains(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """T1w and FLAIR (X, Y, Z) of a head without skull, whole numbers."""
    images = head(seed)
    inside = images["desc-brain_mask"] > 0
    return tuple(np.where(inside, np.maximum(images[what], 1), 0).round() for what in ("T1w", "FLAIR"))


def study_of(patient: str, date: str = "20200131", time: str = "101500", **more: Any) -> dict[str, Any]:
    """What all series of a study share."""
    return {
        "PatientID": patient,
        "PatientName": "Doe^Jane",
        "StudyDate": date,
        "StudyTime": time,
        "StudyInstanceUID": generate_uid(),
        "PatientAge": "045Y",
        "PatientSex": "F",
        **more,
    }


def write_series(folder: Path, array: np.ndarray, shared: dict[str, Any], own: dict[str, Any]) -> list[Path]:
    """One series of axial slices; files are called by numbers that are not in order."""
    folder.mkdir(parents=True, exist_ok=True)
    series, frame = generate_uid(), generate_uid()
    written = []
    for k in range(array.shape[2]):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = MRImageStorage
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
        header.SeriesInstanceUID, header.FrameOfReferenceUID = series, frame
        header.Modality, header.Manufacturer, header.InstanceNumber = "MR", "SIEMENS", k + 1
        header.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
        header.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        header.ImagePositionPatient = [0, 0, MM * k]
        header.PixelSpacing, header.SliceThickness, header.SpacingBetweenSlices = [MM, MM], MM, MM
        header.Columns, header.Rows = array.shape[:2]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
        for name, value in {**shared, **own}.items():
            setattr(header, name, value)
        header.PixelData = np.ascontiguousarray(array[:, :, k].T.astype(np.uint16)).tobytes()
        path = folder / f"IM{(k * 7) % array.shape[2]:04d}-{own['SeriesNumber']}"
        header.save_as(path, enforce_file_format=True)
        written.append(path)
    return written
