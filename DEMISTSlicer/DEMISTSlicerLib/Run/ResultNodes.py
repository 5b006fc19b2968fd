"""What the worker says at the end of a run, as nodes in the scene.

Generators, so that the event loop turns between two nodes; see :class:`~DEMISTSlicerLib.Run.Steps.Steps` for what they
yield. Each takes the worker's ``done`` message; its value is the result.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..Nodes import Volumes
from ..Nodes.Patient import asScanned, patientNodes
from ..Nodes.Segmentation import regionPieces
from .Exchange import readReference
from .Result import Result
from .RunInputs import RunInputs

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

#: Images of a synthesis: their keys in the request, and what its provenance calls them.
_TOLD = {"t1w": "T1w", "flair": "FLAIR", "brain_mask": "brain mask"}


def makeMaps(
    message: dict[str, Any],
    inputs: RunInputs,
    output: vtkMRMLScalarVolumeNode | None = None,
    uncertainty: vtkMRMLScalarVolumeNode | None = None,
) -> Generator[Any, None, Result]:
    """The PSR map over the T1w, and its uncertainty if there is one; into the nodes given, or into new ones."""
    t1, provenance = inputs.nodes["t1w"], message["provenance"]
    for key, name in _TOLD.items():
        if name in provenance.get("inputs", {}):
            provenance["inputs"][name]["node"] = inputs.nodes[key].GetName()
    array, affine = yield from readReference(message["psr"])
    yield True
    psr = Volumes.createPsrVolume(t1, array, affine, provenance, node=present(output))
    yield True
    spread = None
    if message.get("uncertainty"):
        array, affine = yield from readReference(message["uncertainty"])
        yield True
        spread = Volumes.createPsrVolume(
            t1, array, affine, provenance, node=present(uncertainty), uncertainty=True, psrNode=psr
        )
    return Result(
        "synthesis",
        psr,
        spread,
        provenance=provenance,
        notes=provenance.get("warnings", []),
        sanity=message.get("sanity") or {},
        samplingAfter=message.get("sampling_after"),
    )


def makeFiles(message: dict[str, Any]) -> Generator[Any, None, Result]:
    """No nodes: the maps are files already."""
    yield True
    provenance = {**message["provenance"], "files": message["files"]}
    return Result(
        "synthesis",
        provenance=provenance,
        notes=provenance.get("warnings", []),
        samplingAfter=message.get("sampling_after"),
    )


def makeDicom(message: dict[str, Any]) -> Generator[Any, None, Result]:
    """No nodes: the files are there already."""
    yield True
    return Result("dicom", files=dict(message["files"]))


def makeRegions(
    message: dict[str, Any], t1: vtkMRMLScalarVolumeNode, segmentation: vtkMRMLSegmentationNode | None = None
) -> Generator[Any, None, Result]:
    """Suggested lesions and NAWM on the T1w's grid; into the segmentation given, or into a new one."""
    segments = yield from makeSegments(message, t1, segmentation)
    return Result("regions", segmentation=segments, notes=message["notes"])


def makeSegments(
    message: dict[str, Any], reference: vtkMRMLScalarVolumeNode, segmentation: vtkMRMLSegmentationNode | None = None
) -> Generator[Any, None, Any]:
    """The masks of a message as a segmentation on the grid of ``reference``; None if there are none."""
    masks = {}
    for key, told in message["masks"].items():
        masks[key], _affine = yield from readReference(told)
    yield True
    if not masks:
        return None
    node, suggested = present(segmentation), bool(message["suggested"])
    made = yield from regionPieces(masks, reference, node=node, suggested=suggested)
    yield True
    return made


def makeT1w(message: dict[str, Any]) -> Generator[Any, None, Result]:
    """A synthetic T1w brain."""
    array, affine = yield from readReference(message["t1w"])
    yield True
    node = Volumes.createSyntheticT1w(array, affine, message["provenance"])
    return Result("brain_ldm", t1w=node, provenance=message["provenance"])


def makePatient(message: dict[str, Any]) -> Generator[Any, None, Result]:
    """A simulated patient: T1w, FLAIR, true PSR, true lesions."""
    volumes = {}
    for key in ("t1w", "flair", "psr", "lesions"):
        change = asScanned if key in ("t1w", "flair") else np.asarray
        volumes[key] = yield from readReference(message[key], change)
    yield True
    nodes = yield from patientNodes(volumes, message.get("protocol"), message.get("seed"))
    return Result(
        "simulate",
        nodes["psr"],
        None,
        nodes["t1w"],
        nodes["flair"],
        nodes["segmentation"],
        {"protocol": message.get("protocol"), "seed": message.get("seed")},
    )


def present(node: Any) -> Any:
    """A node to write into, unless it was deleted meanwhile: then a new one is made."""
    return node if node is not None and node.GetScene() is not None else None
