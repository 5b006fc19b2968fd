"""Write simulated subjects as a BIDS data set: scans as raw data, the truth as a derivative."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import __version__
from ..commit import aside, commit
from ..errors import InputError
from ..files import atomic_path, write_json
from ..labels import CSF, GREY, NAMES, WHITE
from ..lock import in_use
from ..volume import Volume
from .protocol import Protocol
from .scanner import Scan
from .subject import Subject

#: Tissue fractions that are written, by BIDS label.
FRACTIONS = {"WM": WHITE, "GM": GREY, "CSF": CSF}


def check_free(root: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that is in use.

    Raises:
        InputError: ``root`` is a file, or holds files already and ``overwrite`` is off.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file; give a folder for the data set.")
    if root.exists() and in_use(root) and not overwrite:
        raise InputError(f"{root} is not empty; give a new folder, --resume or --overwrite.")


def write_description(root: Path) -> None:
    """Create ``dataset_description.json`` of the data set and of its ``derivatives/truth``."""
    common = {"BIDSVersion": "1.9.0", "GeneratedBy": [{"Name": "DEMISTCore.simulate", "Version": __version__}]}
    raw = {"Name": "Simulated T1w, FLAIR and PSR", "DatasetType": "raw", "License": "CC0"}
    derivative = {"Name": "Ground truth of the simulation", "DatasetType": "derivative"}
    truth = root / "derivatives" / "truth"
    write_json(root / "dataset_description.json", raw | common)
    write_json(truth / "dataset_description.json", derivative | common)
    with atomic_path(truth / "desc-tissue_dseg.tsv") as temporary:
        temporary.write_text("index\tname\n" + "".join(f"{index}\t{name}\n" for index, name in NAMES.items()))


def subject_done(root: Path, name: str) -> bool:
    """True where ``name`` is complete: its truth and its scans are in place."""
    truth = root / "derivatives" / "truth" / name / "anat" / f"{name}_desc-truth_parameters.json"
    return truth.exists() and (root / name).is_dir()


def write_subject(root: Path, name: str, subject: Subject, scans: list[Scan]) -> None:
    """Write one subject whole or not at all: its scans (a session for each of several scanners) and its truth.

    Everything is written aside and then put in place together. What a killed run left aside is removed, or finished,
    by the next.
    """
    truth = root / "derivatives" / "truth"
    try:
        with aside(root / name) as hidden:
            _write_scans(hidden / "scans", name, scans)
            _write_truth(hidden / "truth", name, subject, scans)
            commit([(hidden / "scans", root / name), (hidden / "truth", truth / name)])
    except OSError as error:
        raise InputError(f"Cannot write {root / name}: {error.strerror}; choose a folder you can write to.") from error


def _write_scans(folder: Path, name: str, scans: list[Scan]) -> None:
    for index, scan in enumerate(scans, start=1):
        session = f"ses-{index:02d}" if len(scans) > 1 else ""
        stem = f"{name}_{session}" if session else name
        for suffix, volume in (("T1w", scan.t1w), ("FLAIR", scan.flair)):
            volume.write(folder / session / "anat" / f"{stem}_{suffix}.nii.gz", dtype=np.int16)
            write_json(folder / session / "anat" / f"{stem}_{suffix}.json", _sidecar(scan.protocol, suffix))


def _write_truth(folder: Path, name: str, subject: Subject, scans: list[Scan]) -> None:
    folder = folder / "anat"
    # Six decimals of a fraction compress to half the size of full single precision.
    Volume(np.round(subject.psr, 6), subject.affine).write(folder / f"{name}_desc-truth_PSRmap.nii.gz")
    for entity, array in (
        ("desc-tissue_dseg", subject.dseg),
        ("desc-lesion_mask", subject.lesions.mask & subject.brain),
        ("desc-brain_mask", subject.brain),
    ):
        Volume(array.astype(np.uint8), subject.affine).write(folder / f"{name}_{entity}.nii.gz", dtype=np.uint8)
    # What a hard label cannot say: how much of a voxel is which tissue. Three decimals compress well.
    for label, key in FRACTIONS.items():
        part = np.round(np.where(subject.brain, subject.true_fractions[key], 0), 3).astype(np.float32)
        Volume(part, subject.affine).write(folder / f"{name}_label-{label}_probseg.nii.gz")
    write_json(folder / f"{name}_desc-truth_PSRmap.json", {"Units": "fraction", "Description": "Pool size ratio"})
    parameters = {**subject.parameters, "scans": [scan.protocol.to_dict() for scan in scans], "version": __version__}
    write_json(folder / f"{name}_desc-truth_parameters.json", parameters)


# PulseSequenceType and ScanningSequence of BIDS.
_NAMES = {
    "mprage": ("MPRAGE", "GR_IR"),
    "spgr": ("SPGR", "GR"),
    "se": ("Spin Echo", "SE"),
    "ir": ("IR-TSE", "SE_IR"),
    "flair": ("FLAIR", "SE_IR"),
}


def _sidecar(protocol: Protocol, suffix: str) -> dict:
    """The protocol in BIDS terms and units: s, degrees, tesla, mm.

    RepetitionTime is the whole cycle of an inversion-recovery sequence (RepetitionTimePreparation of BIDS), not the
    echo spacing, which is RepetitionTimeExcitation. What a sequence does not have is left out.
    """
    first = suffix == "T1w"
    spacing = protocol.t1_spacing if first else protocol.flair_spacing
    acquired = [round(size * zoom, 4) for size, zoom in zip(spacing, protocol.processing[0 if first else 1].zoom)]
    sequence = protocol.t1_sequence if first else "flair"
    # Thick slices are excited one by one, but for those of gradient echoes, which are slabs.
    flat = spacing[2] >= 2 and sequence in ("se", "ir", "flair")
    content: dict = {
        "Manufacturer": "simulated",
        "ManufacturersModelName": "DEMISTCore.simulate",
        "MagneticFieldStrength": protocol.field_strength,
        "MRAcquisitionType": "2D" if flat else "3D",
        "PulseSequenceType": _NAMES[sequence][0],
        "ScanningSequence": _NAMES[sequence][1],
        "AcquisitionVoxelSize": acquired,
        "SliceThickness": acquired[2],
        "SpacingBetweenSlices": acquired[2],
        "RepetitionTime": protocol.t1_tr if first else protocol.flair_tr,
        "EchoTime": protocol.t1_te if first else protocol.flair_te,
        "FlipAngle": protocol.t1_flip if sequence in ("mprage", "spgr") else 90.0,
    }
    if sequence in ("mprage", "ir", "flair"):
        content["InversionTime"] = protocol.t1_ti if first else protocol.flair_ti
        content["RepetitionTimePreparation"] = content["RepetitionTime"]
    if sequence == "mprage":
        content |= {
            "RepetitionTimeExcitation": protocol.t1_echo_spacing,
            "EchoTrainLength": protocol.t1_echoes,
        }
    return content
