"""Slicer's own *Export to DICOM* writes whole numbers: of a PSR map, zeros. It is refused, with the way that works."""

from __future__ import annotations

from typing import Any

import slicer

from ..I18n import _
from ..Nodes.Placement import QUANTITY

#: The plugin that would write them, in Slicer's list of DICOM plugins.
PLUGIN = "DICOMScalarVolumePlugin"


def sentence(name: str) -> str:
    """Why a map called ``name`` is not exported that way, and what to do."""
    return _(
        "{name} was not exported: as an ordinary image it would be written in whole numbers, all of them 0. Use Export "
        "as DICOM... in DEMIST myelin map, Advanced > Outputs: it writes a Parametric Map, the numbers as they are."
    ).format(name=name)


def isMap(node: Any) -> bool:
    """Whether a node holds PSR or its uncertainty, made by this module."""
    return node is not None and node.GetAttribute(QUANTITY) in ("PSR", "Uncertainty", "Preview")


def guarded(plugin: type) -> type:
    """A subclass of Slicer's plugin that refuses maps; everything else is as before. Slicer's class is not changed."""

    class Guarded(plugin):
        """Slicer's plugin for scalar volumes, without the export of maps of fractions."""

        isGuarded = True

        def export(self, exportables: Any) -> str:
            """What went wrong, empty if nothing did: nothing is written if a map is among them."""
            for exportable in exportables:
                node = slicer.mrmlScene.GetNodeByID(_nodeIdOf(exportable))
                if isMap(node):
                    return sentence(node.GetName())
            return super().export(exportables)

    Guarded.__name__ = Guarded.__qualname__ = plugin.__name__
    return Guarded


def guard() -> bool:
    """Put the guarded plugin in the place of Slicer's; False where there is none. May be called again."""
    plugins = getattr(slicer.modules, "dicomPlugins", None)
    if not plugins or PLUGIN not in plugins:
        return False
    if not getattr(plugins[PLUGIN], "isGuarded", False):
        plugins[PLUGIN] = guarded(plugins[PLUGIN])
    return True


def _nodeIdOf(exportable: Any) -> str:
    """The node behind an exportable: it names its item of the subject hierarchy, or the node itself."""
    node = getattr(exportable, "nodeID", "") or ""
    if node:
        return str(node)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    found = hierarchy.GetItemDataNode(int(exportable.subjectHierarchyItemID)) if hierarchy is not None else None
    return found.GetID() if found is not None else ""
