"""The simulated patient as nodes in the scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from ..I18n import _
from . import Placement, Voxels
from .Segmentation import regionsToSegmentation
from .Volumes import createPsrVolume

if TYPE_CHECKING:
    from slicer import vtkMRMLScene

STATEMENT = "A simulated patient: no person was scanned. The PSR is the true one of the simulation."


def createPatient(
    volumes: Mapping[str, tuple[np.ndarray, np.ndarray]],
    protocol: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """The simulated patient as nodes, in a folder of the subject hierarchy.

    Args:
        volumes: array (i, j, k) and affine (4, 4) by name: ``t1w``, ``flair``; on the T1w's grid ``psr``, ``lesions``.
        protocol: how it was "scanned".
        seed: of the simulation.

    Returns:
        Nodes by name: ``t1w``, ``flair``, ``psr`` (true), ``segmentation`` (true lesions).
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
        array, affine = volumes[name]
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetName(scene.GenerateUniqueName(f"{prefix} {label}"))
        node.SetIJKToRASMatrix(Voxels.matrixFromArray(affine))
        node.SetAndObserveImageData(Voxels.imageFromArray(_asScanned(array)))
        scene.AddNode(node)
        node.CreateDefaultDisplayNodes()
        node.SetAttribute(Placement.SYNTHETIC, "1")
        node.SetAttribute(Placement.STATEMENT, STATEMENT)
        node.SetDescription(STATEMENT)
        nodes[name] = node
    _inFolder(scene, _("DEMIST simulated patient"), nodes.values())
    array, affine = volumes["psr"]
    nodes["psr"] = createPsrVolume(nodes["t1w"], array, affine, origin, name=f"{prefix} {_('true PSR')}")
    nodes["segmentation"] = regionsToSegmentation(
        {"lesion": volumes["lesions"][0]}, nodes["t1w"], name=f"{prefix} {_('true lesions')}"
    )
    nodes["segmentation"].SetDescription(STATEMENT)
    return nodes


def _asScanned(array: np.ndarray) -> np.ndarray:
    """Whole numbers, as scanners write them."""
    return np.clip(np.round(array), -32768, 32767).astype(np.int16)


def _inFolder(scene: vtkMRMLScene, name: str, nodes: Any) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is None:
        return
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), scene.GenerateUniqueName(name))
    for node in nodes:
        hierarchy.SetItemParent(Placement.itemOf(hierarchy, node), folder)
