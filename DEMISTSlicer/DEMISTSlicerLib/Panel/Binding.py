"""Parameters bound to the panel's widgets, and let go of whole."""

from __future__ import annotations

from typing import Any


class Binding:
    """The widgets of a panel follow parameters, and the other way round, until :meth:`release`.

    ``disconnectGui`` of Slicer 5.10 leaves behind the observer that ``connectGui`` has put on the parameter node (5.12
    takes it away). Python then collects the observer's function, as nothing but VTK holds it, VTK calls it at the
    node's next change, and Slicer crashes. So each observer that is put there is noted here and taken away.

    Args:
        parameters: an instance of a ``parameterNodeWrapper`` class.
        ui: the widgets, as ``slicer.util.childWidgetVariables`` gives them.
    """

    def __init__(self, parameters: Any, ui: Any) -> None:
        self._parameters = parameters
        self._observers: list[int] = []
        add = parameters.AddObserver

        def noting(*arguments: Any) -> int:
            tag = add(*arguments)
            self._observers.append(tag)
            return tag

        parameters.AddObserver = noting
        try:
            self._tag = parameters.connectGui(ui)
        finally:
            del parameters.AddObserver

    def release(self) -> None:
        """Neither follows the other any more; no observer is left."""
        self._parameters.disconnectGui(self._tag)
        for tag in self._observers:
            self._parameters.RemoveObserver(tag)
        self._observers.clear()
