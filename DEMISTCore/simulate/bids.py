"""Write simulated subjects as a BIDS data set: scans as raw data, the truth as a derivative."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import InputError
from ..files import write_json
from ..volume import Volume
from .protocol import Protocol
from .scanner import Scan
from .subject import Subject
from .tissues import DSEG_NAMES


def write_description(root: Path, *, overwrite: bool = False) -> None:
    """Create ``dataset_description.json`` of the data set and of its ``derivatives/truth``.

    Raises:
        InputError: ``root`` holds files already and ``overwrite`` is off.
    """
    if root.exists() and any(root.iterdir()) and not overwrite:
        raise InputError(f"{root} is not empty; give a new folder or --overwrite.")
    generated = [{"Name": "DEMISTCore.simulate", "Version": __version__}]
    write_json(root / "dataset_description.json", {
        "Name": "Simulated T1w, FLAIR and PSR", "BIDSVersion": "1.9.0", "DatasetType": "raw", "License": "CC0",
        "GeneratedBy": generated,
    })
    write_json(root / "derivatives" / "truth" / "dataset_description.json", {
        "Name": "Ground truth of the simulation", "BIDSVersion": "1.9.0", "DatasetType": "derivative",
        "GeneratedBy": generated,
    })
    table = "index\tname\n" + "".join(f"{index}\t{name}\n" for index, name in DSEG_NAMES.items())
    (root / "derivatives" / "truth" / "desc-tissue_dseg.tsv").write_text(table)


def subject_done(root: Path, name: str) -> bool:
    """True where ``name``'s truth is complete (its parameters are written last)."""
    return (root / "derivatives" / "truth" / name / "anat" / f"{name}_desc-truth_parameters.json").exists()


def write_subject(root: Path, name: str, subject: Subject, scans: list[Scan]) -> None:
    """Write one subject: its scans (one session a scanner when there are several) and its truth."""
    for index, scan in enumerate(scans, start=1):
        session = f"ses-{index:02d}" if len(scans) > 1 else ""
        folder = root / name / session / "anat" if session else root / name / "anat"
        stem = f"{name}_{session}" if session else name
        for suffix, volume in (("T1w", scan.t1w), ("FLAIR", scan.flair)):
            volume.write(folder / f"{stem}_{suffix}.nii.gz", dtype=np.int16)
            write_json(folder / f"{stem}_{suffix}.json", _sidecar(scan.protocol, suffix))
    folder = root / "derivatives" / "truth" / name / "anat"
    # Six significant digits of a fraction compress to half the size of full single precision.
    Volume(np.round(subject.psr, 6), subject.affine).write(folder / f"{name}_desc-truth_PSRmap.nii.gz")
    for entity, array in (
        ("desc-tissue_dseg", subject.dseg),
        ("desc-lesion_mask", subject.lesions.mask & subject.brain),
        ("desc-brain_mask", subject.brain),
    ):
        Volume(array.astype(np.uint8), subject.affine).write(folder / f"{name}_{entity}.nii.gz", dtype=np.uint8)
    write_json(folder / f"{name}_desc-truth_PSRmap.json", {"Units": "fraction", "Description": "Pool size ratio"})
    write_json(folder / f"{name}_desc-truth_parameters.json", {
        **subject.parameters, "scans": [scan.protocol.to_dict() for scan in scans], "version": __version__,
    })


def _sidecar(protocol: Protocol, suffix: str) -> dict:
    content: dict = {
        "Manufacturer": "simulated",
        "ManufacturersModelName": "DEMISTCore.simulate",
        "MagneticFieldStrength": protocol.field_strength,
    }
    if suffix == "T1w":
        content |= {"ScanningSequence": protocol.t1_sequence, "RepetitionTime": protocol.t1_tr}
        if protocol.t1_sequence == "mprage":
            content |= {"InversionTime": protocol.t1_ti, "FlipAngle": protocol.t1_flip}
        elif protocol.t1_sequence == "spgr":
            content |= {"FlipAngle": protocol.t1_flip}
        else:
            content |= {"EchoTime": protocol.t1_te}
    else:
        content |= {
            "ScanningSequence": "flair",
            "RepetitionTime": protocol.flair_tr,
            "InversionTime": protocol.flair_ti,
            "EchoTime": protocol.flair_te,
        }
    return content
