"""Results as volume nodes: on the T1w's grid, beside it, with units, colours and where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from ..Errors import InputError
from ..I18n import _
from . import Placement, Voxels
from .ColorTable import PSR_RANGE, UNCERTAINTY_RANGE, addLegend, psrColorNode, retitleLegend, uncertaintyColorNode
from .Origin import uncertaintyText

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

#: What voxels mean, as DICOM writes it (code, scheme, meaning). DICOM has no code for the pool size ratio, hence a
#: private scheme (PS3.3, 8.2: private schemes start with 99); "1" is UCUM's unit of plain fractions.
QUANTITIES = {
    "PSR": ("PSR", "99DEMIST", "Pool size ratio"),
    "Uncertainty": ("PSR-SD", "99DEMIST", "Standard deviation of the pool size ratio"),
    "Preview": ("PSR", "99DEMIST", "Pool size ratio"),
}
UNITS = ("1", "UCUM", "no units")
#: Below this the overlay is transparent: outside the brain the map is 0, and the T1w should stay visible there.
VISIBLE_FROM = 1e-4


def createPsrVolume(
    t1Node: vtkMRMLScalarVolumeNode,
    array: np.ndarray,
    affine: np.ndarray | None,
    provenance: Mapping[str, Any] | None,
    name: str | None = None,
    node: vtkMRMLScalarVolumeNode | None = None,
    uncertainty: bool = False,
    psrNode: vtkMRMLScalarVolumeNode | None = None,
) -> vtkMRMLScalarVolumeNode:
    """A PSR map (or its uncertainty) as a vtkMRMLScalarVolumeNode exactly over the T1w.

    Args:
        t1Node: gives the place: IJKToRAS, parent transform, subject hierarchy.
        array: (i, j, k) on the T1w's grid, fraction; stored as float32.
        affine: (4, 4) voxel to RAS of the array; must be the T1w's own. None: it is.
        provenance: where the map came from, kept as JSON in an attribute; its "statement" as the node's description.
        name: None: a sensible one, made from the T1w's.
        node: volume node to fill; None makes one. Its display settings are kept if it was a result already.
        uncertainty: its standard deviation instead of PSR; the provenance says of what kind.
        psrNode: the map that an uncertainty belongs to; it will refer to the new node.

    Raises:
        InputError: the array does not lie on the T1w's grid.
    """
    kind = "Uncertainty" if uncertainty else "PSR"
    checkGrid(t1Node, array, affine)
    scene = Placement.sceneOf(node, t1Node)
    suffix = _("PSR uncertainty") if uncertainty else _("PSR")
    if node is None:
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetName(scene.GenerateUniqueName(name or f"{t1Node.GetName()} {suffix}"))
        scene.AddNode(node)
    elif name:
        node.SetName(name)
    was = node.GetAttribute(Placement.QUANTITY)
    modifying = node.StartModify()
    node.CopyOrientation(t1Node)
    if was != kind or node.GetDisplayNode() is None:
        # Before the voxels come: Slicer works out a window of its own for them, which takes 0.1 s for a large head.
        setUpDisplay(node, uncertainty)
    if uncertainty and (provenance or {}).get("uncertainty"):
        retitleLegend(node, uncertaintyText(provenance)[0])
    Voxels.setArray(node, np.asarray(array, np.float32))
    describe(node, kind, provenance)
    if uncertainty and psrNode is not None:
        psrNode.SetNodeReferenceID(Placement.UNCERTAINTY_REFERENCE, node.GetID())
    node.SetNodeReferenceID(Placement.T1W_REFERENCE, t1Node.GetID())
    Placement.followTransform(node, t1Node)
    node.EndModify(modifying)
    if scene.GetSubjectHierarchyNode() is not None:
        Placement.placeBeside(node, t1Node)
    return node


def createSyntheticT1w(
    array: np.ndarray, affine: np.ndarray, provenance: Mapping[str, Any] | None, name: str | None = None
) -> vtkMRMLScalarVolumeNode:
    """A synthetic T1w brain as a volume node; ``array`` (i, j, k), ``affine`` (4, 4) voxel to RAS."""
    scene = slicer.mrmlScene
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(scene.GenerateUniqueName(name or _("Synthetic T1w")))
    node.SetIJKToRASMatrix(Voxels.matrixFromArray(affine))
    node.SetAndObserveImageData(Voxels.imageFromArray(np.asarray(array, np.float32)))
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    node.SetAttribute(Placement.QUANTITY, "T1w")
    _tellOrigin(node, provenance)
    Placement.placeBeside(node, None)
    return node


def checkGrid(t1Node: vtkMRMLScalarVolumeNode, array: np.ndarray, affine: np.ndarray | None) -> None:
    """Raise InputError unless ``array`` lies on the T1w's own grid."""
    shape = Voxels.shapeOf(t1Node)
    if tuple(array.shape) != shape:
        raise InputError(
            _("The result has {a} voxels but {name} has {b}; was it changed during the run? Run again.").format(
                a=_times(array.shape), b=_times(shape), name=t1Node.GetName()
            )
        )
    if affine is not None and not Voxels.samePlace(affine, Voxels.affineOf(t1Node), shape):
        raise InputError(
            _("{name} was moved during the run, so the result would not lie over it; run again.").format(
                name=t1Node.GetName()
            )
        )


def describe(node: vtkMRMLScalarVolumeNode, kind: str, provenance: Mapping[str, Any] | None) -> None:
    """Units, quantity and origin, for people and for programs; ``kind`` is a key of :data:`QUANTITIES`."""
    node.SetVoxelValueQuantity(_coded(*QUANTITIES[kind]))
    node.SetVoxelValueUnits(_coded(*UNITS))
    node.SetAttribute(Placement.QUANTITY, kind)
    _tellOrigin(node, provenance)


def setUpDisplay(node: vtkMRMLScalarVolumeNode, uncertainty: bool = False) -> None:
    """Colour table, range and legend of a PSR or uncertainty map."""
    node.CreateDefaultDisplayNodes()
    scene, display = node.GetScene(), node.GetDisplayNode()
    limits = UNCERTAINTY_RANGE if uncertainty else PSR_RANGE
    modifying = display.StartModify()
    display.SetAndObserveColorNodeID((uncertaintyColorNode if uncertainty else psrColorNode)(scene).GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*limits)
    display.SetThreshold(VISIBLE_FROM, 1e6)
    display.SetAutoThreshold(0)
    display.SetApplyThreshold(1)
    display.EndModify(modifying)
    addLegend(node, _("PSR SD (fraction)") if uncertainty else _("PSR (fraction)"), "%.3f" if uncertainty else "%.2f")


def uncertaintyTextOf(psrNode: vtkMRMLScalarVolumeNode | None) -> tuple[str, str]:
    """What the uncertainty of a map is called, and an explanation, see :func:`.Origin.uncertaintyText`."""
    return uncertaintyText({} if psrNode is None else provenanceOf(psrNode))


def provenanceOf(node: vtkMRMLScalarVolumeNode) -> dict[str, Any]:
    """What :func:`describe` kept, also after the scene was saved and loaded; empty if there is nothing."""
    text = node.GetAttribute(Placement.PROVENANCE)
    return json.loads(text) if text else {}


def uncertaintyOf(psrNode: vtkMRMLScalarVolumeNode | None) -> vtkMRMLScalarVolumeNode | None:
    """The uncertainty map that belongs to a PSR map, or None."""
    return None if psrNode is None else psrNode.GetNodeReference(Placement.UNCERTAINTY_REFERENCE)


def t1wOf(psrNode: vtkMRMLScalarVolumeNode | None) -> vtkMRMLScalarVolumeNode | None:
    """The T1w that a map was synthesized from, or None if it is gone."""
    return None if psrNode is None else psrNode.GetNodeReference(Placement.T1W_REFERENCE)


def mapOf(t1Node: vtkMRMLScalarVolumeNode) -> vtkMRMLScalarVolumeNode | None:
    """A PSR map in the scene that was synthesized from a T1w, or None."""
    scene = t1Node.GetScene()
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode")
        synthesized = node.GetAttribute(Placement.QUANTITY) == "PSR" and "settings" in provenanceOf(node)
        if synthesized and t1wOf(node) is t1Node:
            return node
    return None


def _tellOrigin(node: vtkMRMLScalarVolumeNode, provenance: Mapping[str, Any] | None) -> None:
    node.SetAttribute(Placement.SYNTHETIC, "1")
    if provenance is None:
        return
    node.SetAttribute(Placement.PROVENANCE, json.dumps(provenance, ensure_ascii=False, default=str, sort_keys=True))
    statement = str(provenance.get("statement") or "")
    if statement:
        node.SetAttribute(Placement.STATEMENT, statement)
        node.SetDescription(statement)


def _coded(code: str, scheme: str, meaning: str) -> Any:
    entry = slicer.vtkCodedEntry()
    entry.SetValueSchemeMeaning(code, scheme, meaning)
    return entry


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(int(n)) for n in shape)
