"""``slicer.modules.demistslicer``: the module as the module manager offers it, its panel and its logic.

Stands in for qSlicerScriptedLoadableModule and qSlicerScriptedLoadableModuleWidget: they load ``DEMISTSlicer.py``, make
the widget object in a parent of type qMRMLWidget, and pass on ``enter``, ``exit`` and ``reload``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

from PySide6 import QtWidgets

from .flavour import flavoured
from .qmrml import qMRMLWidget


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The parent of the panel; ``self()`` is the Python object, as in Slicer."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self._module = module
        self.isEntered = False
        self._python: Any = None
        self.setLayout(flavoured(QtWidgets.QVBoxLayout)())

    def layout(self) -> Any:
        return super().layout()

    def make(self) -> Any:
        """Make the Python object and its panel."""
        import slicer

        self.setMRMLScene(slicer.mrmlScene)
        self._python = self._module.code.DEMISTSlicerWidget(self)
        setattr(slicer.modules, f"{self._module.name}Widget", self._python)
        self._python.setup()
        return self._python

    def self(self) -> Any:
        return self._python

    def enter(self) -> None:
        self.isEntered = True
        self._python.enter()

    def exit(self) -> None:
        self.isEntered = False
        self._python.exit()

    def reload(self) -> None:
        """After the source was read again: a new Python object in the same parent."""
        self._module.code = sys.modules[self._module.name]
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.deleteLater()
        self.make()
        if self.isEntered:
            self._python.enter()


class qSlicerScriptedLoadableModule:
    """The module: ``name``, ``path``, ``widgetRepresentation()``, and the description that its class fills in."""

    def __init__(self, path: Path) -> None:
        self.name, self.path = path.stem, str(path)
        self.parent = types.SimpleNamespace(path=self.path)
        self._widget: qSlicerScriptedLoadableModuleWidget | None = None
        spec = importlib.util.spec_from_file_location(self.name, path)
        self.code = importlib.util.module_from_spec(spec)
        sys.modules[self.name] = self.code
        spec.loader.exec_module(self.code)
        self.module = getattr(self.code, self.name)(self.parent)

    def widgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        if self._widget is None:
            self._widget = qSlicerScriptedLoadableModuleWidget(self)
            self._widget.make()
        return self._widget

    def close(self) -> None:
        """The application closes: the panel cleans up and is gone."""
        if self._widget is not None:
            self._widget.self().cleanup()
            self._widget.deleteLater()
            self._widget = None


def open_module(name: str = "DEMISTSlicer") -> qSlicerScriptedLoadableModule:
    """Load the module as Slicer does at start; again for a fresh one."""
    import slicer

    close_module(name)
    module = qSlicerScriptedLoadableModule(Path(__file__).parents[2] / name / f"{name}.py")
    setattr(slicer.modules, name.lower(), module)
    return module


def close_module(name: str = "DEMISTSlicer") -> None:
    """Close the module's panel, if it is open."""
    import slicer

    module = getattr(slicer.modules, name.lower(), None)
    if module is not None:
        module.close()
        delattr(slicer.modules, name.lower())
