"""The section Display: the map over the T1w, switched on and off."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..Errors import InputError
from ..I18n import _
from ..Nodes.Volumes import uncertaintyTextOf
from .Choice import Choice
from .Units import FRACTION, choices

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


class DisplayPanel:
    """Buttons, opacity and choice of map.

    Args:
        ui: the panel's widgets: ``overlayButton``, ``layoutButton``, ``viewComboBox``.
        overlay: an :class:`Overlay`.
        parameters: gives the parameter node wrapper, or None.
        report: shows a sentence about what went wrong.
    """

    def __init__(self, ui: Any, overlay: Any, parameters: Callable[[], Any], report: Callable[[str], object]) -> None:
        self.ui, self.overlay = ui, overlay
        self._parameters, self._report = parameters, report
        self._shown: tuple[Any, Any] | None = None
        self.view = Choice(ui.viewComboBox, self._onView)
        self._called = ""
        self._fillViews(None)
        self.unit = Choice(ui.unitComboBox, self._onUnit)
        self.unit.fill(choices(), FRACTION)
        ui.overlayButton.connect("toggled(bool)", self._onToggled)
        ui.layoutButton.connect("clicked()", self.compare)

    def disconnect(self) -> None:
        """Hear no more of the widgets, and give the user's view settings back."""
        self.view.disconnect()
        self.unit.disconnect()
        self.ui.overlayButton.disconnect("toggled(bool)", self._onToggled)
        self.ui.layoutButton.disconnect("clicked()", self.compare)
        self.hide()

    def update(self) -> None:
        """Show what the parameters say."""
        parameters = self._parameters()
        here = bool(parameters and parameters.psr and parameters.t1)
        self.ui.overlayButton.enabled = self.ui.layoutButton.enabled = here
        self.ui.viewComboBox.enabled = here
        if parameters is None:
            return
        self._fillViews(parameters.psr)
        self.view.show(parameters.view)
        self.unit.show(parameters.unit)
        if self.overlay.isShown and here:
            if self._shown != (parameters.psr, parameters.t1):  # another map was chosen: show that one
                self.show()
            elif self.overlay.opacity != parameters.opacity:
                self.overlay.setOpacity(parameters.opacity)
        self._button()

    def show(self, layout: str | None = None) -> bool:
        """Switch the map on; False and a sentence to the user when that cannot be."""
        parameters = self._parameters()
        if parameters is None:
            return False
        try:
            self.overlay.show(
                parameters.psr, parameters.t1, parameters.opacity, parameters.view, parameters.uncertainty, layout
            )
            self._shown = (parameters.psr, parameters.t1)
        except InputError as error:
            self._report(str(error))
        self._button()
        return bool(self.overlay.isShown)

    def hide(self) -> None:
        """Switch the map off: views as they were before."""
        self.overlay.hide()
        self._shown = None
        self._button()

    def compare(self) -> None:
        """One click: T1w above, the map below, linked."""
        self.show("compare")

    def _fillViews(self, psr: vtkMRMLScalarVolumeNode) -> None:
        """Offer the map and its uncertainty, called what it is."""
        text, tip = uncertaintyTextOf(psr)
        if text == self._called:
            return
        self._called = text
        self.view.fill(
            [
                ("psr", _("PSR (fraction)"), _("Pool size ratio, 0 to 0.2: white matter about 0.12, cortex 0.06.")),
                ("uncertainty", text, tip),
            ],
            self.view.value or "psr",
        )

    def _button(self) -> None:
        was = self.ui.overlayButton.blockSignals(True)
        self.ui.overlayButton.checked = bool(self.overlay.isShown)
        self.ui.overlayButton.blockSignals(was)

    def _onToggled(self, on: bool) -> None:
        if on:
            self.show()
        else:
            self.hide()

    def _onUnit(self, unit: str) -> None:
        parameters = self._parameters()
        if parameters is not None:
            parameters.unit = unit

    def _onView(self, view: str) -> None:
        parameters = self._parameters()
        if parameters is None:
            return
        before = parameters.view
        parameters.view = view
        if not self.overlay.isShown:
            return
        if not self.show() or self.overlay.view != view:  # there is no uncertainty: the map stays
            parameters.view = before
