"""What is known of the scans' protocol: from a BIDS sidecar beside the file that a volume came from, or from DICOM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..Nodes.Inputs import dicomTags

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

#: No sidecar is as long as this (bytes).
_MOST = 1 << 20
_SUFFIXES = (".gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".img", ".hdr")
#: What the model reads (DEMISTCore.acquisition; a test compares), by BIDS name: the DICOM tag, and the factor from
#: DICOM's unit (ms, degrees, T, mm) to that of BIDS (s). Nothing else of a sidecar is sent.
_KEYS = {
    "RepetitionTime": ("0018,0080", 1e-3),
    "EchoTime": ("0018,0081", 1e-3),
    "InversionTime": ("0018,0082", 1e-3),
    "FlipAngle": ("0018,1314", 1.0),
    "MagneticFieldStrength": ("0018,0087", 1.0),
    "SliceThickness": ("0018,0050", 1.0),
}


def protocolOf(t1: vtkMRMLScalarVolumeNode, flair: vtkMRMLScalarVolumeNode) -> dict[str, dict[str, Any]]:
    """The protocol of two volumes as the worker takes it: by ``T1w`` and ``FLAIR``, by BIDS name; what is not known is
    left out. The worker checks the values."""
    found = {"T1w": _ofNode(t1), "FLAIR": _ofNode(flair)}
    return {name: content for name, content in found.items() if content}


def _ofNode(node: vtkMRMLScalarVolumeNode) -> dict[str, Any]:
    storage = node.GetStorageNode() if hasattr(node, "GetStorageNode") else None
    name = (storage.GetFullNameFromFileName() if storage is not None else None) or ""
    return (_beside(Path(name)) if name else {}) or _fromDicom(node)


def _beside(image: Path) -> dict[str, Any]:
    """The sidecar's single values; empty where there is none that can be read."""
    stem = image.name
    for suffix in _SUFFIXES:
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
    try:
        path = image.with_name(f"{stem}.json")
        if not path.is_file() or path.stat().st_size > _MOST:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: content[name] for name in _KEYS if _canBeSent(content.get(name))}


def _canBeSent(value: Any) -> bool:
    """A number, a list of one (as some converters write it), or a short text, which the worker will complain of."""
    if isinstance(value, list):
        return len(value) == 1 and _canBeSent(value[0]) and not isinstance(value[0], list)
    return len(value) <= 64 if isinstance(value, str) else isinstance(value, (int, float)) and -1e9 < value < 1e9


def _fromDicom(node: vtkMRMLScalarVolumeNode) -> dict[str, Any]:
    """The same from Slicer's DICOM database, for a series that was loaded from there."""
    told = dicomTags(node, {name: tag for name, (tag, _factor) in _KEYS.items()})
    found = {}
    for name, text in told.items():
        try:
            found[name] = round(float(text) * _KEYS[name][1], 9)
        except ValueError:
            continue
    return found
