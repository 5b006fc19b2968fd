"""Images that look swapped or mismatched are used only after the user has said so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..Nodes.Inputs import doubtOf

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


class Confirmation:
    """A box that appears with a doubt, and holds for the two images that it was ticked for.

    Args:
        box: a QCheckBox.
        onChanged: called when the user ticks it, or takes the tick away.
    """

    def __init__(self, box: Any, onChanged: Callable[[], object]) -> None:
        self._box, self._onChanged = box, onChanged
        self._pair: tuple[Any, Any] = (None, None)
        box.connect("toggled(bool)", self._onToggled)

    def disconnect(self) -> None:
        """Hear no more of the box."""
        self._box.disconnect("toggled(bool)", self._onToggled)

    def isGiven(self, t1: vtkMRMLScalarVolumeNode | None, flair: vtkMRMLScalarVolumeNode | None) -> bool:
        """Whether these may be used: nothing speaks against them, or the user has confirmed them."""
        if (t1, flair) != self._pair:  # what was confirmed is one pair's
            self._pair = (t1, flair)
            was = self._box.blockSignals(True)
            self._box.checked = False
            self._box.blockSignals(was)
        doubt = bool(doubtOf(t1, flair))
        self._box.visible = doubt
        return bool(self._box.checked) or not doubt

    def _onToggled(self, _on: bool) -> None:
        self._onChanged()
