"""Where results belong: beside the T1w in the subject hierarchy, under the same transform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScene, vtkMRMLSubjectHierarchyNode, vtkMRMLTransformableNode

#: Attributes and node references that results carry; they are saved with the scene.
PROVENANCE = "DEMIST.Provenance"
QUANTITY = "DEMIST.Quantity"
SYNTHETIC = "DEMIST.Synthetic"
SUGGESTED = "DEMIST.Suggested"
STATEMENT = "DEMIST.Statement"
T1W_REFERENCE = "DEMIST.T1w"
UNCERTAINTY_REFERENCE = "DEMIST.Uncertainty"
VOLUME_REFERENCE = "DEMIST.Volume"
SEGMENTATION_REFERENCE = "DEMIST.Segmentation"


def sceneOf(*nodes: Any) -> vtkMRMLScene:
    """The scene of the first node that is in one, else the application's."""
    for node in nodes:
        if node is not None and node.GetScene() is not None:
            return node.GetScene()
    return slicer.mrmlScene


def placeBeside(node: vtkMRMLNode, neighbour: vtkMRMLNode | None) -> None:
    """Put ``node`` below ``neighbour`` in the subject hierarchy, at the same level; to the end of it on a repeat."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    if hierarchy is None:
        return
    item = itemOf(hierarchy, node)
    beside = itemOf(hierarchy, neighbour) if neighbour is not None else 0
    if item and beside:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(beside))


def itemOf(hierarchy: vtkMRMLSubjectHierarchyNode, node: vtkMRMLNode) -> int:
    """The item of a node; made if there is none yet (Slicer's own Qt plugins make them at once)."""
    invalid = slicer.vtkMRMLSubjectHierarchyNode.GetInvalidItemID()
    item = hierarchy.GetItemByDataNode(node)
    if item == invalid:
        item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    return 0 if item == invalid else item


def followTransform(node: vtkMRMLNode, leader: vtkMRMLTransformableNode | None) -> None:
    """Put ``node`` under the parent transform of ``leader``, or under none if that has none."""
    transform = leader.GetParentTransformNode() if leader is not None else None
    node.SetAndObserveTransformNodeID(transform.GetID() if transform is not None else None)
