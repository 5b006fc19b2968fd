"""``qt.QUiLoader``: Qt's own reader of .ui files, making PythonQt-like widgets and the stand-ins of CTK and qMRML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from . import ctk, qmrml
from .flavour import flavoured

CUSTOM = {
    "ctkCollapsibleButton": ctk.ctkCollapsibleButton,
    "ctkSliderWidget": ctk.ctkSliderWidget,
    "qMRMLWidget": qmrml.qMRMLWidget,
    "qMRMLNodeComboBox": qmrml.qMRMLNodeComboBox,
}


class UiLoader(QtUiTools.QUiLoader):
    """Loads a .ui file. A class that is unknown here raises KeyError: the panel must not use it."""

    def createWidget(self, className: str, parent: Any = None, name: str = "") -> Any:
        kind = CUSTOM.get(className) or flavoured(getattr(QtWidgets, className))
        widget = kind(parent)
        widget.setObjectName(name)
        self._made.append(widget)
        return widget

    def load(self, device: Any, parent: Any = None) -> Any:
        """Make the widgets, then connect what the file says, by Python: stand-ins have no C++ slots."""
        path = device.fileName()
        tree = ElementTree.parse(path)
        connections = tree.getroot().find("connections")
        if connections is not None:
            tree.getroot().remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree.getroot()))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        self._made: list[Any] = []
        root = super().load(buffer, parent)
        by_name = {widget.objectName: widget for widget in self._made}
        for connection in connections if connections is not None else ():
            sender, signal, receiver, slot = (
                connection.findtext(key) for key in ("sender", "signal", "receiver", "slot")
            )
            getattr(by_name[sender], signal.split("(")[0]).connect(getattr(by_name[receiver], slot.split("(")[0]))
        root._made = self._made  # Python's side of the widgets lives as long as the panel
        return root
