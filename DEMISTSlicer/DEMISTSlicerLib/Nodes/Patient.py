"""The simulated patient as nodes in the scene."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from ..I18n import _
from . import Placement, Voxels
from .Pieces import atOnce
from .Segmentation import regionPieces
from .Volumes import createPsrVolume

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene

STATEMENT = "A simulated patient: no person was scanned. The PSR is the true one of the simulation."


def createPatient(
    volumes: Mapping[str, tuple[np.ndarray, np.ndarray]],
    protocol: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """All of :func:`patientNodes` at once, which takes some tenths of a second."""
    return atOnce(patientNodes(volumes, protocol, seed))


def patientNodes(
    volumes: Mapping[str, tuple[np.ndarray, np.ndarray]],
    protocol: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Generator[bool, None, dict[str, Any]]:
    """The simulated patient as nodes, in a folder of the subject hierarchy, one at a time.

    Args:
        volumes: array (i, j, k) and affine (4, 4) by name: ``t1w``, ``flair``; on the T1w's grid ``psr``, ``lesions``.
        protocol: how it was "scanned".
        seed: of the simulation.

    Returns:
        Nodes by name: ``t1w``, ``flair``, ``psr`` (true), ``segmentation`` (true lesions); as the generator's value.
    """
    scene = slicer.mrmlScene
    origin = {
        "statement": STATEMENT,
        "simulated": True,
        "seed": seed,
        "protocol": dict(protocol or {}),
        "source": "DEMISTCore.simulate",
    }
    prefix = _("Simulated")
    nodes: dict[str, Any] = {}
    for name, label in (("t1w", "T1w"), ("flair", "FLAIR")):
        nodes[name] = _scan(f"{prefix} {label}", *volumes[name])
        yield True
    _inFolder(scene, _("DEMIST simulated patient"), nodes.values())
    array, affine = volumes["psr"]
    nodes["psr"] = createPsrVolume(nodes["t1w"], array, affine, origin, name=f"{prefix} {_('true PSR')}")
    yield True
    nodes["segmentation"] = yield from regionPieces(
        {"lesion": volumes["lesions"][0]}, nodes["t1w"], name=f"{prefix} {_('true lesions')}"
    )
    nodes["segmentation"].SetDescription(STATEMENT)
    return nodes


def asScanned(array: np.ndarray) -> np.ndarray:
    """Whole numbers, as scanners write them: int16."""
    return array if array.dtype == np.int16 else np.clip(np.round(array), -32768, 32767).astype(np.int16)


def _scan(name: str, array: np.ndarray, affine: np.ndarray) -> vtkMRMLScalarVolumeNode:
    """One of the images as a volume node."""
    scene = slicer.mrmlScene
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(scene.GenerateUniqueName(name))
    node.SetIJKToRASMatrix(Voxels.matrixFromArray(affine))
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    # Slicer works out a window of its own from all voxels, which takes 0.1 s for a head; a part of them tells as much.
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    values = np.sort(array[::4, ::4, ::4], axis=None)
    out = len(values) // 1000  # at each end, as Slicer has it
    display.SetWindowLevelMinMax(float(values[out]), float(values[-1 - out]))
    display.SetAutoThreshold(0)
    node.SetAndObserveImageData(Voxels.imageFromArray(asScanned(array)))
    node.SetAttribute(Placement.SYNTHETIC, "1")
    node.SetAttribute(Placement.STATEMENT, STATEMENT)
    node.SetDescription(STATEMENT)
    return node


def _inFolder(scene: vtkMRMLScene, name: str, nodes: Any) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is None:
        return
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), scene.GenerateUniqueName(name))
    for node in nodes:
        hierarchy.SetItemParent(Placement.itemOf(hierarchy, node), folder)
