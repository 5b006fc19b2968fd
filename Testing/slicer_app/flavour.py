"""PySide6 presented as PythonQt presents Qt, so that module code is written as a real Slicer needs it.

Differences that are bridged:

- properties are attributes (``label.text``, ``box.checked = True``), not methods (``label.text()`` raises TypeError, as
  it does in Slicer);
- ``object.connect("clicked(bool)", slot)`` and ``disconnect`` with the signature as text; the slot gets as many
  arguments as the signature names;
- one flat namespace ``qt`` for QtCore, QtGui, QtWidgets.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

# Properties that are virtual methods in C++ too: Qt calls them, a Python property in their place would break it.
_VIRTUAL = {"sizeHint", "minimumSizeHint"}
# A static method of the same name is what code means: qt.QTimer.singleShot(0, slot).
_STATIC = {"singleShot"}
_classes: dict[type, type] = {}


def _property(base: type, name: str) -> property:
    """Python property for the Qt property ``name`` of ``base``."""
    title = name[0].upper() + name[1:]
    getter = getattr(base, name, None)
    if not callable(getter):
        getter = getattr(base, f"is{title}", None) or (lambda self: QtCore.QObject.property(self, name))
    setter = getattr(base, f"set{title}", None) or (lambda self, value: QtCore.QObject.setProperty(self, name, value))
    if name == "visible":  # CTK's sections remember what was hidden by itself, and do not unfold it
        return property(lambda self: getter(self), _show, doc="Qt property visible")
    return property(lambda self: getter(self), lambda self, value: setter(self, value), doc=f"Qt property {name}")


def _show(self: Any, value: bool) -> None:
    QtCore.QObject.setProperty(self, "visibilityToParent", bool(value))
    self.setVisible(value)


def _arguments(signature: str) -> list[str]:
    inside = signature[signature.index("(") + 1 : signature.rindex(")")].strip()
    return [part.strip() for part in inside.split(",")] if inside else []


def _signal(self: Any, signature: str) -> Any:
    """The bound signal that ``signature`` names; the overload with these arguments where there are several."""
    name = signature.split("(")[0]
    signal = getattr(self, name, None)
    if signal is None or not hasattr(signal, "emit"):
        raise ValueError(f"QObject::connect() signal {signature} does not exist on {type(self).__name__}")
    return signal


def _connect(self: Any, signature: str, slot: Callable[..., object]) -> bool:
    """PythonQt's ``connect``: the slot gets as many arguments as the signature names."""
    count = len(_arguments(signature))

    def relay(*values: object) -> object:
        return slot(*values[:count])

    connections = self.__dict__.setdefault("_connections", [])
    signal = _signal(self, signature)
    signal.connect(relay)
    connections.append((signature, slot, relay))
    return True


def _disconnect(self: Any, signature: str, slot: Callable[..., object]) -> bool:
    """PythonQt's ``disconnect``: returns False where nothing was connected."""
    connections = self.__dict__.get("_connections", [])
    for entry in connections:
        if entry[0] == signature and entry[1] == slot:
            _signal(self, signature).disconnect(entry[2])
            connections.remove(entry)
            return True
    return False


def flavoured(base: type) -> type:
    """The PythonQt-like subclass of a PySide6 class; other classes come back as they are."""
    if not isinstance(base, type) or not issubclass(base, QtCore.QObject) or "_flavoured" in base.__dict__:
        return base
    if base not in _classes:
        members: dict[str, Any] = {"_flavoured": True, "connect": _connect, "disconnect": _disconnect}
        meta = base.staticMetaObject
        for index in range(meta.propertyCount()):
            name = meta.property(index).name()
            if name not in _VIRTUAL | _STATIC and not name.startswith("_"):
                members[name] = _property(base, name)
        # PythonQt lets "name" stand for "objectName"; slicer.util.childWidgetVariables relies on it.
        members.setdefault("name", members["objectName"])
        members["className"] = lambda self: type(self).__name__
        _classes[base] = type(base.__name__, (base,), members)
    return _classes[base]


def _first(function: Callable[..., Any]) -> staticmethod:
    """PythonQt returns the name of the file alone; PySide6 the filter that was chosen with it."""
    return staticmethod(lambda *values, **names: function(*values, **names)[0])


class QtModule(types.ModuleType):
    """The flat module ``qt``."""

    def __getattr__(self, name: str) -> Any:
        for source in (QtCore, QtGui, QtWidgets):
            if hasattr(source, name):
                value = flavoured(getattr(source, name))
                setattr(self, name, value)
                return value
        raise AttributeError(f"module 'qt' has no attribute {name!r}")


def qt_module() -> types.ModuleType:
    """The module to put in place as ``qt``."""
    module = QtModule("qt")
    dialog = module.QFileDialog
    dialog.getSaveFileName = _first(QtWidgets.QFileDialog.getSaveFileName)
    dialog.getOpenFileName = _first(QtWidgets.QFileDialog.getOpenFileName)
    return module
