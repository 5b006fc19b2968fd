"""What a folder holds as DICOM: its series, from the headers of all files, without reading a pixel."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...dicom.place import missing_package
from ...errors import InputError, printable
from ...files import is_hidden
from .series import Series, kind_of, rank_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

log = logging.getLogger(__name__)

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "PatientAge",
    "PatientSex",
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "Modality",
    "ImageType",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "ScanningSequence",
    "MRAcquisitionType",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "ContrastBolusAgent",
    "SliceThickness",
    "SpacingBetweenSlices",
    "NumberOfFrames",
]
#: Files looked at to tell whether a folder is an archive at all.
_TRIALS = 2000


def read_archive(folder: Path, leave_out: Path | None = None) -> list[Series]:
    """Every MR series below ``folder``, sorted by patient, study and number. Links to folders are not followed.

    Args:
        folder: any tree of files, whatever they are called.
        leave_out: a folder in it that is not looked into.

    Raises:
        InputError: pydicom is missing, or there is no DICOM file.
    """
    try:
        import pydicom  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    first: dict[str, Dataset] = {}
    files: dict[str, dict[str, str]] = {}
    frames: dict[str, int] = {}
    for path in _files(folder, leave_out):
        with warnings.catch_warnings():  # of what is odd in a header, nothing matters here
            warnings.simplefilter("ignore")
            header = _header(path)
        if header is None or str(header.get("Modality", "")) != "MR" or not header.get("StudyInstanceUID"):
            continue
        uid = str(header.SeriesInstanceUID)
        first.setdefault(uid, header)
        there = files.setdefault(uid, {})
        instance = str(header.get("SOPInstanceUID", path))
        if instance not in there:  # the same image twice, as double exports make it
            there[instance] = str(path)
            frames[uid] = frames.get(uid, 0) + max(1, int(_number(header.get("NumberOfFrames")) or 1))
    if not first:
        raise InputError(
            f"{folder} holds no DICOM files of MR series; give a BIDS data set, a table of paths, or a folder of DICOM "
            "studies."
        )
    found = [_series(header, files[uid], frames[uid]) for uid, header in first.items()]
    return sorted(found, key=lambda one: (one.patient, one.date, one.study, one.number, one.uid))


def is_archive(folder: Path) -> bool:
    """Whether a folder is no BIDS data set, and holds DICOM files."""
    with suppress(OSError):
        if (folder / "dataset_description.json").exists() or any(folder.glob("sub-*")):
            return False
        for number, path in enumerate(_files(folder, None)):
            if number >= _TRIALS:
                return False
            with suppress(OSError), open(path, "rb") as stream:
                if stream.read(132)[128:] == b"DICM":
                    return True
    return False


def _files(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=lambda error: log.warning("%s", error)):
        folders[:] = sorted(name for name in folders if not is_hidden(name) and Path(place, name) != leave_out)
        yield from (Path(place, name) for name in sorted(names) if not is_hidden(name))


def _header(path: Path) -> Dataset | None:
    """The header of a DICOM image; None for any other file, and for one that cannot be read."""
    from pydicom import dcmread

    try:
        if not path.is_file():  # a pipe would be waited for for ever
            return None
        header = dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        return header if header.get("SeriesInstanceUID") else None
    except Exception:  # a damaged file may fail anywhere in the parser, and is of no use whatever it says
        return None


def _series(header: Dataset, files: dict[str, str], images: int) -> Series:
    said = {name: _text(header.get(name)) for name in ("SeriesDescription", "ProtocolName", "SequenceName")}
    types = _list(header.get("ImageType"))
    three_d = _text(header.get("MRAcquisitionType")).upper() == "3D"
    kind, why_not = kind_of(
        names=said.values(),
        image_type=types,
        images=images,
        sequence=_list(header.get("ScanningSequence")),
        three_d=three_d,
        echo_ms=_number(header.get("EchoTime")),
        repetition_ms=_number(header.get("RepetitionTime")),
        inversion_ms=_number(header.get("InversionTime")),
        contrast=bool(_text(header.get("ContrastBolusAgent"))),
    )
    between = _number(header.get("SpacingBetweenSlices")) or _number(header.get("SliceThickness"))
    return Series(
        uid=str(header.SeriesInstanceUID),
        study=str(header.StudyInstanceUID),
        patient=_text(header.get("PatientID")),
        number=int(_number(header.get("SeriesNumber")) or 0),
        description=said["SeriesDescription"] or said["ProtocolName"],
        kind=kind,
        why_not=why_not,
        rank=rank_of(types, three_d, between),
        date=_text(header.get("StudyDate")),
        time=_text(header.get("StudyTime")),
        age=_text(header.get("PatientAge")),
        sex=_text(header.get("PatientSex")),
        files=tuple(files.values()),
        digest=hashlib.sha256("\n".join(sorted(files)).encode("utf-8", "replace")).hexdigest(),
    )


def _text(value: Any) -> str:
    """A value as text that a terminal, a table and a page can show; what cannot be decoded is nothing."""
    try:
        return printable(str(value)).strip() if value is not None else ""
    except Exception:
        return ""


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(part) for part in value] if not isinstance(value, str) else [value]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
