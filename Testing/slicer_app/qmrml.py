"""The qMRML widgets that the panel uses, thin, over the real scene.

Compared with qMRMLNodeComboBox.h and qMRMLWidget.h of Slicer. Left out: rename, edit, the icon delegates, filters by
attribute, hidden nodes (never shown).
"""

from __future__ import annotations

import weakref
from typing import Any

from PySide6 import QtCore, QtWidgets

from .flavour import flavoured

_Widget = flavoured(QtWidgets.QWidget)


class qMRMLWidget(_Widget):
    """A panel that knows the scene; ``mrmlSceneChanged`` tells its parts, as the .ui connects them."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(_Widget):
    """Chooses a node of some types; without a scene it is empty and stays so."""

    currentNodeChanged = QtCore.Signal(object)
    currentNodeIDChanged = QtCore.Signal(str)
    nodeAddedByUser = QtCore.Signal(object)
    nodeAboutToBeRemoved = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._options: dict[str, Any] = {
            "nodeTypes": [],
            "hideChildNodeTypes": [],
            "noneEnabled": False,
            "addEnabled": True,
            "removeEnabled": True,
            "renameEnabled": False,
            "editEnabled": False,
            "showChildNodeTypes": True,
            "selectNodeUponCreation": True,
            "noneDisplay": "None",
            "baseName": "",
        }
        self._scene: Any = None
        self._current: str | None = None
        self._observed: list[int] = []
        self._nodes: list[Any] = []
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._box = QtWidgets.QComboBox()
        self._box.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._box.setMinimumContentsLength(16)
        self._box.activated.connect(self._on_activated)
        row.addWidget(self._box)

    def _option(name: str, kind: Any) -> Any:
        def setter(self: Any, value: Any) -> None:
            self._options[name] = list(value) if kind == "QStringList" else value
            self._refresh()

        return QtCore.Property(kind, lambda self: self._options[name], setter)

    nodeTypes = _option("nodeTypes", "QStringList")
    hideChildNodeTypes = _option("hideChildNodeTypes", "QStringList")
    noneEnabled = _option("noneEnabled", bool)
    addEnabled = _option("addEnabled", bool)
    removeEnabled = _option("removeEnabled", bool)
    renameEnabled = _option("renameEnabled", bool)
    editEnabled = _option("editEnabled", bool)
    showChildNodeTypes = _option("showChildNodeTypes", bool)
    selectNodeUponCreation = _option("selectNodeUponCreation", bool)
    noneDisplay = _option("noneDisplay", str)
    baseName = _option("baseName", str)
    del _option

    # --- the scene -----------------------------------------------------------------------------------------------

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        if self._scene is not None:
            for tag in self._observed:
                self._scene.RemoveObserver(tag)
        self._scene, self._observed = scene, []
        if scene is not None:
            me = weakref.ref(self)

            def changed(*_: Any) -> None:
                widget = me()
                # As qMRML: while a scene is read or closed nobody looks; one event tells the end of it.
                if widget is not None and not scene.IsBatchProcessing():
                    widget._refresh()

            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent):
                self._observed.append(scene.AddObserver(event, changed))
            self.destroyed.connect(lambda *_: [scene.RemoveObserver(tag) for tag in self._observed])
        self._refresh()

    def _matching(self) -> list[Any]:
        found: list[Any] = []
        for index in range(self._scene.GetNumberOfNodes() if self._scene is not None else 0):
            node = self._scene.GetNthNode(index)
            kinds = self._options["nodeTypes"]
            fits = any(node.IsA(k) if self._options["showChildNodeTypes"] else node.GetClassName() == k for k in kinds)
            hidden = any(node.IsA(k) for k in self._options["hideChildNodeTypes"])
            if fits and not hidden and not node.GetHideFromEditors():
                found.append(node)
        return found

    def _refresh(self) -> None:
        self._nodes = ([None] if self._options["noneEnabled"] else []) + self._matching()
        was = self._box.blockSignals(True)
        self._box.clear()
        for node in self._nodes:
            self._box.addItem(self._options["noneDisplay"] if node is None else node.GetName())
        if self._options["addEnabled"] and self._options["nodeTypes"] and self._scene is not None:
            self._box.insertSeparator(self._box.count())
            kind = self._options["nodeTypes"][0]
            name = self._options["baseName"] or self._scene.GetTagByClassName(kind)
            self._box.addItem(f"Create new {name}")
        self._box.blockSignals(was)
        ids = [None if node is None else node.GetID() for node in self._nodes]
        if self._current not in ids:
            self._choose(ids[0] if ids else None)
        else:
            self._show()

    def _show(self) -> None:
        ids = [None if node is None else node.GetID() for node in self._nodes]
        was = self._box.blockSignals(True)
        self._box.setCurrentIndex(ids.index(self._current) if self._current in ids else -1)
        self._box.blockSignals(was)

    def _choose(self, identifier: str | None) -> None:
        changed = identifier != self._current
        self._current = identifier
        self._show()
        if changed:
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(identifier or "")

    def _on_activated(self, index: int) -> None:
        if index < len(self._nodes):
            node = self._nodes[index]
            self._choose(None if node is None else node.GetID())
        else:
            self._show()
            self.addNode()

    # --- the interface -------------------------------------------------------------------------------------------

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self._current) if self._scene is not None and self._current else None

    def setCurrentNode(self, node: Any) -> None:
        if node is not None and node not in self._nodes:
            return  # not of these types, or of another scene: the real one ignores it, too
        self._choose(None if node is None else node.GetID())

    currentNodeID = QtCore.Property(
        str, lambda self: self._current or "", lambda self, value: self._choose(value or None)
    )

    def nodeCount(self) -> int:
        return len([node for node in self._nodes if node is not None])

    def addNode(self) -> Any:
        """What "Create new ..." does."""
        kind = self._options["nodeTypes"][0]
        name = self._options["baseName"] or self._scene.GetTagByClassName(kind)
        node = self._scene.AddNewNodeByClass(kind, self._scene.GenerateUniqueName(name))
        self._refresh()
        if self._options["selectNodeUponCreation"]:
            self._choose(node.GetID())
        self.nodeAddedByUser.emit(node)
        return node


#: Names that Slicer's own Python files compare widgets with; the panel has none of these.
PLACEHOLDERS = (
    "qMRMLSliderWidget",
    "qMRMLSpinBox",
    "qMRMLRangeWidget",
    "qMRMLCheckableNodeComboBox",
    "qMRMLSubjectHierarchyComboBox",
)
