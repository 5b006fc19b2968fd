"""``slicer.parameterNodeWrapper``, reduced to what the module relies on; values are stored as Slicer stores them.

Text, numbers and truth as parameters of the node (``str(value)``), nodes as node references: a scene that was saved
here can be read by Slicer and the other way round (test_slicer_parameters.py compares with Slicer's own files).
Left out: parameter packs, lists, paths, enumerations, and validators besides ranges; caching.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WithinRange:
    """A number from ``minimum`` to ``maximum``."""

    minimum: float
    maximum: float

    def check(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], not {value}")


@dataclass(frozen=True)
class _Field:
    name: str
    kind: Any  # str, int, float, bool, or a tuple of node class names
    check: WithinRange | None
    default: Any
    union: bool = False
    optional: bool = False

    def _roles(self) -> list[str]:
        """Roles of node references: the name, and in a union the number of the type after it."""
        return [f"{self.name}.{i}" for i in range(len(self.kind))] if self.union else [self.name]

    def read(self, node: Any) -> Any:
        if isinstance(self.kind, tuple):
            found = [node.GetNodeReference(role) for role in self._roles()]
            return next((other for other in found if other is not None), None)
        if not node.GetParameter(self.name) and self.kind is not str:
            return self.default
        text = node.GetParameter(self.name)
        return text == "True" if self.kind is bool else self.kind(text)

    def write(self, node: Any, value: Any) -> None:
        if isinstance(self.kind, tuple):
            fits = [value is not None and value.IsA(kind) for kind in self.kind]
            if value is not None and not any(fits):
                raise TypeError(f"{self.name} takes {' or '.join(self.kind)}, not {value.GetClassName()}")
            if value is None and self.union and not self.optional:
                raise TypeError(f"Unable to write value 'None' to {self.name}: its union of nodes does not name None")
            was = node.StartModify()
            roles = self._roles()
            where = fits.index(True) if any(fits) else len(roles)
            for index, role in enumerate(roles):
                node.SetNodeReferenceID(role, value.GetID() if index == where else None)
                if self.union:
                    node.UnsetParameter(role)
            # An empty parameter of the same name tells that the reference was set; in a union, True at the place of
            # None that it was set to nothing.
            if self.union:
                node.UnsetParameter(f"{self.name}.{len(roles)}")
            if where < len(roles):
                node.SetParameter(roles[where], "")
            elif self.union:
                node.SetParameter(f"{self.name}.{where}", "True")
            else:
                node.SetParameter(self.name, "")
            node.EndModify(was)
            return
        if not isinstance(value, (int, float) if self.kind is float else self.kind):
            raise TypeError(f"{self.name} takes {self.kind.__name__}, not {value!r}")
        if self.check is not None:
            self.check.check(value)
        node.SetParameter(self.name, str(self.kind(value)))

    def is_in(self, node: Any) -> bool:
        names = node.GetParameterNames()
        if self.union:
            return any(f"{self.name}.{i}" in names for i in range(len(self.kind) + 1))
        return self.name in names


def _fields(described: type) -> dict[str, _Field]:
    fields = {}
    for name, hint in typing.get_type_hints(described, include_extras=True).items():
        check = None
        if typing.get_origin(hint) is typing.Annotated:
            hint, check = typing.get_args(hint)[:2]
        kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        if kinds[0] not in (str, int, float, bool):
            nodes = tuple(kind.__name__ for kind in kinds if kind is not type(None))
            fields[name] = _Field(name, nodes, None, None, len(kinds) > 1, type(None) in kinds)
        else:
            fields[name] = _Field(name, hint, check, getattr(described, name, hint()))
    return fields


class _Base:
    """What a decorated class can do."""

    allParameters: dict[str, _Field]

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, list[Callable[[], None]]] = {}
        self._showing = False
        for field in self.allParameters.values():
            if not field.is_in(parameterNode):
                field.write(parameterNode, field.default)

    def getValue(self, name: str) -> Any:
        return self.allParameters[name].read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self.allParameters[name].write(self.parameterNode, value)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: int) -> None:
        self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def connectGui(self, gui: Any) -> int:
        """Bind every widget with the property SlicerParameterName; returns a tag for :meth:`disconnectGui`."""
        bound = {}
        for widget in vars(gui).values():
            name = widget.property("SlicerParameterName")
            if name:
                bound[name] = _Binding(self, self.allParameters[name], widget)

        def show(*_: Any) -> None:
            if self._showing:
                return
            self._showing = True
            try:
                for name, binding in bound.items():
                    binding.show(self.getValue(name))
            finally:
                self._showing = False

        show()
        for binding in bound.values():
            binding.connect()
        tag = self.AddObserver("ModifiedEvent", show)
        self._guis[tag] = [binding.disconnect for binding in bound.values()]
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        """As in Slicer 5.10, the observer of the node stays: who connects has to take it away."""
        for call in self._guis.pop(tag, ()):
            call()


class _Binding:
    """One widget and one parameter."""

    def __init__(self, wrapper: _Base, field: _Field, widget: Any) -> None:
        import ctk
        import qt
        import slicer

        self.wrapper, self.field, self.widget = wrapper, field, widget
        numbers = (qt.QDoubleSpinBox, ctk.ctkSliderWidget)
        # By the very type, as Slicer compares it: a widget of another class would not be bound there either.
        self.signal, self.attribute = {
            (qt.QCheckBox, bool): ("toggled", "checked"),
            (qt.QSpinBox, int): ("valueChanged", "value"),
            (qt.QLineEdit, str): ("textChanged", "text"),
            (slicer.qMRMLNodeComboBox, tuple): ("currentNodeChanged", None),
            **{(kind, float): ("valueChanged", "value") for kind in numbers},
        }[type(widget), tuple if isinstance(field.kind, tuple) else field.kind]
        if isinstance(field.kind, tuple):
            widget.nodeTypes = list(field.kind)
        if field.check is not None:
            widget.minimum, widget.maximum = field.check.minimum, field.check.maximum

    def connect(self) -> None:
        getattr(self.widget, self.signal).connect(self._changed)

    def disconnect(self) -> None:
        getattr(self.widget, self.signal).disconnect(self._changed)

    def _changed(self, *_: Any) -> None:
        if not self.wrapper._showing:
            value = getattr(self.widget, self.attribute) if self.attribute else self.widget.currentNode()
            self.wrapper.setValue(self.field.name, value)

    def show(self, value: Any) -> None:
        if self.attribute:
            setattr(self.widget, self.attribute, value)
        else:
            self.widget.setCurrentNode(value)


def parameterNodeWrapper(described: type) -> type:
    """The decorator."""
    fields = _fields(described)
    members: dict[str, Any] = {
        "allParameters": fields,
        "__doc__": described.__doc__,
        "__module__": described.__module__,
    }
    for name in fields:
        members[name] = property(
            lambda self, name=name: self.getValue(name), lambda self, value, name=name: self.setValue(name, value)
        )
    return type(described.__name__, (_Base,), members)


def parameter_module() -> types.ModuleType:
    """The module to put in place as ``slicer.parameterNodeWrapper``."""
    module = types.ModuleType("slicer.parameterNodeWrapper")
    module.parameterNodeWrapper = parameterNodeWrapper
    module.WithinRange = WithinRange
    return module
