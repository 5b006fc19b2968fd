"""A note in a corner of the slice views that show a synthesized map: pictures are passed on without context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import slicer
import vtk

from ..I18n import _


def noteText(provenance: Mapping[str, Any]) -> str:
    """What the corner says; empty for a measured map, which has no provenance."""
    if not provenance:
        return ""
    if provenance.get("source") == "DEMISTCore.simulate":
        return _("simulated, research only")
    return _("synthesized, research only")


class Note:
    """Text in the lower right corner of every slice view.

    It is an actor of its own: the corners' own annotations belong to Slicer's Data Probe, which writes over them.

    Args:
        renderers: gives those of the slice views; default: of the application's layout.
    """

    def __init__(self, renderers: Callable[[], list[vtk.vtkRenderer]] | None = None) -> None:
        self._renderers = renderers or sliceRenderers
        self._shown: list[tuple[vtk.vtkRenderer, vtk.vtkTextActor]] = []

    def show(self, text: str) -> None:
        """Show it in all views that there are now; an empty text shows nothing."""
        self.hide()
        for renderer in self._renderers() if text else ():
            actor = vtk.vtkTextActor()
            actor.SetInput(text)
            actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
            actor.SetPosition(0.985, 0.015)
            style = actor.GetTextProperty()
            style.SetFontSize(12)
            style.SetJustificationToRight()
            style.SetColor(1.0, 1.0, 0.6)
            style.SetShadow(True)
            renderer.AddViewProp(actor)
            self._shown.append((renderer, actor))

    def hide(self) -> None:
        """Take it away; may be called at any time."""
        for renderer, actor in self._shown:
            renderer.RemoveViewProp(actor)
        self._shown.clear()


def sliceRenderers() -> list[vtk.vtkRenderer]:
    """The renderers of the slice views in the layout; none without a main window."""
    manager = slicer.app.layoutManager() if getattr(slicer, "app", None) is not None else None
    if manager is None:
        return []
    views = [manager.sliceWidget(name).sliceView() for name in manager.sliceViewNames()]
    return [view.renderWindow().GetRenderers().GetFirstRenderer() for view in views]
