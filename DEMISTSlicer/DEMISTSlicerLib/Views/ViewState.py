"""The user's view settings, remembered before they are changed, so that they can be put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vtk

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLSliceNode


@dataclass
class _Entry:
    node: vtkMRMLNode
    get: Callable[[Any], Any]
    put: Callable[[Any, Any], Any]
    before: Any
    applied: Any = None
    always: bool = False


class ViewState:
    """Changes properties of nodes and undoes it, each property by itself.

    A property is put back only if it still has the value that was set here: what the user has chosen since then is
    the user's own and stays. Values are compared after reading them back from the node, which may have clamped them.
    Properties changed or remembered with ``always`` are put back whatever has become of them.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}

    def change(
        self,
        node: vtkMRMLNode,
        name: str,
        value: Any,
        *,
        put: Callable[[Any, Any], Any] | None = None,
        always: bool = False,
    ) -> None:
        """Set property ``name`` of ``node`` by ``Set<name>`` (or ``put``); it is read by ``Get<name>``."""
        put = put or (lambda n, v: getattr(n, f"Set{name}")(v))
        entry = self._entry(node, name, lambda n: getattr(n, f"Get{name}")(), put)
        put(node, value)
        entry.applied, entry.always = entry.get(node), always

    def remember(self, node: vtkMRMLNode, name: str, get: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> None:
        """Note what ``name`` is now, to be put back whatever becomes of it."""
        self._entry(node, name, get, put).always = True

    def isStill(self, node: vtkMRMLNode, name: str) -> bool:
        """Whether the property still has the value that was set here."""
        entry = self._entries.get((node.GetID(), name))
        return entry is not None and entry.get(node) == entry.applied

    def keep(self, node: vtkMRMLNode, name: str) -> None:
        """Let the property stay as it is: what was noted of it is forgotten."""
        self._entries.pop((node.GetID(), name), None)

    def restore(self) -> None:
        """Put everything back, in the order opposite to that of the changes."""
        for key in reversed(list(self._entries)):
            entry = self._entries.pop(key)
            # A node that has left the scene since then has no settings to be kept.
            if entry.node.GetScene() is not None and (entry.always or entry.get(entry.node) == entry.applied):
                entry.put(entry.node, entry.before)

    def forget(self) -> None:
        """Undo nothing, remember nothing."""
        self._entries.clear()

    def _entry(self, node: vtkMRMLNode, name: str, get: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> _Entry:
        key = (node.GetID(), name)
        if key not in self._entries:
            self._entries[key] = _Entry(node, get, put, get(node))
        return self._entries[key]


def sliceGeometry(node: vtkMRMLSliceNode) -> tuple[Any, ...]:
    """Where a slice node looks: plane, field of view, pan, window size in pixels."""
    matrix = node.GetSliceToRAS()
    plane = tuple(matrix.GetElement(i, j) for i in range(4) for j in range(4))
    return plane, tuple(node.GetFieldOfView()), tuple(node.GetXYZOrigin()), tuple(node.GetDimensions())


def setSliceGeometry(node: vtkMRMLSliceNode, geometry: tuple[Any, ...]) -> None:
    """Let a slice node look where :func:`sliceGeometry` says; the scale is kept if its window was resized since."""
    plane, field, origin, dimensions = geometry
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(plane)
    now = node.GetDimensions()
    scale = [now[i] / dimensions[i] if dimensions[i] else 1.0 for i in range(2)]
    modifying = node.StartModify()
    node.GetSliceToRAS().DeepCopy(matrix)
    node.UpdateMatrices()
    node.SetFieldOfView(field[0] * scale[0], field[1] * scale[1], field[2])
    node.SetXYZOrigin(*origin)
    node.EndModify(modifying)
