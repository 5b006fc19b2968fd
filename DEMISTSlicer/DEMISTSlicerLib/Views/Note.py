"""A note in a corner of the slice views that show a synthesized map, and marks of the patient's sides.

Pictures are passed on without context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import slicer
import vtk

from ..I18n import _

if TYPE_CHECKING:
    from slicer import vtkMRMLSliceNode

#: Letters of the two ends of each axis of the world: right and left, back and front, feet and head.
_ENDS = ((_("L"), _("R")), (_("P"), _("A")), (_("I"), _("S")))


def noteText(provenance: Mapping[str, Any]) -> str:
    """What the corner says; empty for a measured map, which has no provenance."""
    if not provenance:
        return ""
    if provenance.get("source") == "DEMISTCore.simulate":
        return _("simulated, research only")
    return _("synthesized, research only")


def sides(sliceNode: vtkMRMLSliceNode) -> tuple[str, str]:
    """The letters at the left and at the right edge of a view: R and L of an axial one, A and P of a sagittal one.

    An oblique view has those of the nearest axis.
    """
    matrix = sliceNode.GetSliceToRAS()
    across = [matrix.GetElement(i, 0) for i in range(3)]
    axis = max(range(3), key=lambda i: abs(across[i]))
    low, high = _ENDS[axis]
    return (low, high) if across[axis] > 0 else (high, low)


@dataclass
class _Shown:
    """What is drawn in one view."""

    renderer: vtk.vtkRenderer
    sliceNode: Any
    note: vtk.vtkTextActor
    marks: tuple[vtk.vtkTextActor, ...] = ()
    tags: list[int] = field(default_factory=list)


class Note:
    """Text in the lower right corner of every slice view, and letters of the patient's sides at its edges.

    They are actors of their own: the corners' annotations belong to Slicer's Data Probe, which writes over them.

    Args:
        views: gives renderer and slice node (or None) of each slice view; default: of the application's layout.
    """

    def __init__(self, views: Callable[[], list[tuple[vtk.vtkRenderer, Any]]] | None = None) -> None:
        self._views = views or sliceViews
        self._shown: list[_Shown] = []

    def show(self, text: str) -> None:
        """Show it in all views that there are now; an empty text shows nothing."""
        self.hide()
        for renderer, sliceNode in self._views() if text else ():
            shown = _Shown(renderer, sliceNode, _text((0.985, 0.015), 12, "right"))
            shown.note.SetInput(text)
            if sliceNode is not None:
                shown.marks = (_text((0.015, 0.86), 15, "left"), _text((0.985, 0.86), 15, "right"))
                self._mark(shown)
                tag = sliceNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_, shown=shown: self._mark(shown))
                shown.tags.append(tag)
            for actor in (shown.note, *shown.marks):
                renderer.AddViewProp(actor)
            self._shown.append(shown)

    def hide(self) -> None:
        """Take it away; may be called at any time."""
        for shown in self._shown:
            for actor in (shown.note, *shown.marks):
                shown.renderer.RemoveViewProp(actor)
            for tag in shown.tags:
                shown.sliceNode.RemoveObserver(tag)
        self._shown.clear()

    @staticmethod
    def _mark(shown: _Shown) -> None:
        """The view was turned: its edges are other sides of the patient."""
        for actor, letter in zip(shown.marks, sides(shown.sliceNode)):
            actor.SetInput(letter)


def sliceViews() -> list[tuple[vtk.vtkRenderer, Any]]:
    """Renderer and slice node of the slice views in the layout; none without a main window."""
    manager = slicer.app.layoutManager() if getattr(slicer, "app", None) is not None else None
    if manager is None:
        return []
    widgets = [manager.sliceWidget(name) for name in manager.sliceViewNames()]
    return [(w.sliceView().renderWindow().GetRenderers().GetFirstRenderer(), w.mrmlSliceNode()) for w in widgets]


def _text(place: tuple[float, float], size: int, side: str) -> vtk.vtkTextActor:
    """An empty text, pale yellow with a shadow: read on bright and on dark ground."""
    actor = vtk.vtkTextActor()
    actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
    actor.SetPosition(*place)
    style = actor.GetTextProperty()
    style.SetFontSize(size)
    getattr(style, f"SetJustificationTo{side.capitalize()}")()
    style.SetColor(1.0, 1.0, 0.6)
    style.SetShadow(True)
    return actor
