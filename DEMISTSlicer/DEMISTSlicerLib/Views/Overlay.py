"""PSR over the T1w in Slicer's slice views, and the user's own view settings back when it is switched off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import slicer
import vtk

from ..Errors import InputError
from ..I18n import _
from ..Nodes import Placement
from ..Nodes.Volumes import provenanceOf, uncertaintyOf
from .Note import Note, noteText
from .ViewState import ViewState, setSliceGeometry, sliceGeometry

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSliceCompositeNode, vtkMRMLSliceNode

#: Views by name of the arrangement: Slicer's own layouts.
LAYOUTS = {
    "slices": slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView,
    "compare": slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView,
    "statistics": slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotTableView,
}
#: A view shows so much more than the T1w, so that the legend and the note stand beside the brain.
MARGIN = 1.25
#: In the arrangement "compare" these show the T1w alone, the row below shows the map over it.
_BARE_IN_COMPARE = ("Red", "Yellow", "Green")


class Overlay:
    """Shows a PSR map, or its uncertainty, as foreground over the T1w in all slice views, linked.

    Switched off, every setting it changed is as it was before: volumes, opacity and links of each view, where views
    looked if they had to be moved, and the layout. Settings that the user changed in the meantime stay the user's.
    Window and level of the T1w are never touched.

    Attributes:
        view: ``"psr"`` or ``"uncertainty"``; opacity: of the map, 0 to 1.
    """

    def __init__(self, applicationLogic: Any = None) -> None:
        self._applicationLogic = applicationLogic
        self._state = ViewState()
        self._observed: list[tuple[Any, int]] = []
        self._psr = self._t1 = self._uncertainty = None
        self._arrangement: str | None = None
        #: Views whose window was not there yet when they were to be fitted: a layout makes nodes before windows.
        self._unfitted: set[str] = set()
        self.view = "psr"
        self.opacity = 0.5
        self._note = Note()

    @property
    def isShown(self) -> bool:
        """Whether the overlay is on."""
        return self._psr is not None

    def show(
        self,
        psrNode: vtkMRMLScalarVolumeNode,
        t1Node: vtkMRMLScalarVolumeNode,
        opacity: float = 0.5,
        view: str = "psr",
        uncertaintyNode: vtkMRMLScalarVolumeNode | None = None,
        layout: str | None = None,
    ) -> None:
        """Switch the overlay on, or change what it shows.

        Args:
            psrNode, t1Node: the map and what lies under it.
            opacity: of the map, 0 to 1.
            view: ``"psr"`` or ``"uncertainty"``.
            uncertaintyNode: None: the one that the map refers to.
            layout: a key of :data:`LAYOUTS`; None leaves the layout alone.

        Raises:
            InputError: the uncertainty is asked for, but there is none; or a volume has left the scene.
        """
        if psrNode is None or t1Node is None or psrNode.GetScene() is None or t1Node.GetScene() is None:
            raise InputError(_("Choose a PSR volume and a T1w that are in the scene to show one over the other."))
        uncertaintyNode = uncertaintyNode or uncertaintyOf(psrNode)
        self._check(view, uncertaintyNode, psrNode)
        if self.isShown and t1Node is not self._t1:
            self.hide()
        self._psr, self._t1, self._uncertainty = psrNode, t1Node, uncertaintyNode
        self.view, self.opacity = view, min(max(float(opacity), 0.0), 1.0)
        self._observe(psrNode.GetScene())
        if layout is not None:
            self.arrange(layout)
        self._applyAll()

    def setView(self, view: str) -> None:
        """Show ``"psr"`` or ``"uncertainty"``; nothing happens while the overlay is off. Raises as :meth:`show`."""
        if self.isShown:
            self._check(view, self._uncertainty, self._psr)
            self.view = view
            self._applyAll()

    def setOpacity(self, opacity: float) -> None:
        """Opacity of the map, 0 (T1w alone) to 1."""
        self.opacity = min(max(float(opacity), 0.0), 1.0)
        for composite in self._composites() if self.isShown else ():
            # A view in which the user shows something else keeps its own opacity.
            if self._state.isStill(composite, "ForegroundVolumeID") and not self._isBare(composite):
                self._state.change(composite, "ForegroundOpacity", self.opacity, always=True)

    def arrange(self, layout: str) -> None:
        """Choose the views: ``"slices"`` (three slices and 3-D), ``"compare"`` (T1w above, the map below), or
        ``"statistics"`` (slices, chart and table).

        Raises:
            InputError: there is no such arrangement.
        """
        if layout not in LAYOUTS:
            raise InputError(
                _("There is no arrangement {name}; choose one of {all}.").format(name=layout, all=", ".join(LAYOUTS))
            )
        scene = Placement.sceneOf(self._psr)
        node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if node is not None:
            self._state.change(node, "ViewArrangement", LAYOUTS[layout])
        self._arrangement = layout
        if self.isShown:
            self._applyAll()

    def hide(self) -> None:
        """Switch the overlay off and give the user's settings back."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed.clear()
        for composite in self._composites() if self.isShown else ():
            # Where the user has put another volume into the view meanwhile, its place and opacity belong to that.
            slice_ = self._sliceNode(composite)
            if slice_ is not None and not self._state.isStill(composite, "BackgroundVolumeID"):
                self._state.keep(slice_, "geometry")
            if not self._state.isStill(composite, "ForegroundVolumeID"):
                self._state.keep(composite, "ForegroundOpacity")
        self._state.restore()
        self._note.hide()
        self._unfitted.clear()
        self._updateLegends()
        self._psr = self._t1 = self._uncertainty = self._arrangement = None

    def _applyAll(self) -> None:
        for composite in self._composites():
            self._apply(composite)
        self._updateLegends()
        self._note.show(noteText(provenanceOf(self._psr)))  # again: a layout may have brought views

    def _updateLegends(self) -> None:
        """Legends do not notice by themselves that their volume is shown, or shown no more."""
        for node in (self._psr, self._uncertainty):
            display = node.GetDisplayNode() if node is not None and node.GetScene() is not None else None
            legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(display) if display is not None else None
            if legend is not None:
                legend.Modified()

    # --- one view -----------------------------------------------------------------------------------------------

    def _apply(self, composite: vtkMRMLSliceCompositeNode) -> None:
        shown = self._uncertainty if self.view == "uncertainty" else self._psr
        state = self._state
        modifying = composite.StartModify()
        moved = composite.GetBackgroundVolumeID() != self._t1.GetID()
        slice_ = self._sliceNode(composite)
        tight = not moved and self._isTight(slice_)
        if (moved or tight) and slice_ is not None:
            state.remember(slice_, "geometry", sliceGeometry, setSliceGeometry)
        self._change(composite, "BackgroundVolumeID", self._t1.GetID())
        bare = self._isBare(composite)
        self._change(composite, "ForegroundVolumeID", None if bare else shown.GetID())
        state.change(composite, "ForegroundOpacity", 0.0 if bare else self.opacity, always=True)
        state.change(composite, "Compositing", slicer.vtkMRMLSliceCompositeNode.Alpha)
        state.change(composite, "LinkedControl", 1)
        composite.EndModify(modifying)
        if tight:
            _widen(slice_)
        if (moved or composite.GetID() in self._unfitted) and not self._fit(slice_):
            self._unfitted.add(composite.GetID())
        else:
            self._unfitted.discard(composite.GetID())

    def _change(self, composite: vtkMRMLSliceCompositeNode, name: str, volumeId: str | None) -> None:
        """A layer's volume; one that has left the scene by the time it would be put back gives way to none."""

        def put(node: vtkMRMLSliceCompositeNode, value: str | None) -> None:
            there = value and node.GetScene() is not None and node.GetScene().GetNodeByID(value) is not None
            getattr(node, f"Set{name}")(value if there else None)

        self._state.change(composite, name, volumeId, put=put)

    def _isBare(self, composite: vtkMRMLSliceCompositeNode) -> bool:
        return self._arrangement == "compare" and composite.GetLayoutName() in _BARE_IN_COMPARE

    def _fit(self, sliceNode: vtkMRMLSliceNode | None) -> bool:
        """Let the view show all of the T1w; False if the application has no window for it (yet)."""
        sliceLogic = self._sliceLogic(sliceNode)
        if sliceLogic is None:
            return False
        sliceLogic.FitSliceToBackground()
        _widen(sliceNode)
        return True

    def _isTight(self, sliceNode: vtkMRMLSliceNode | None) -> bool:
        """Whether the view shows the T1w just as Slicer fits it, without a margin: nobody has chosen its scale."""
        sliceLogic = self._sliceLogic(sliceNode)
        if sliceLogic is None:
            return False
        before = sliceGeometry(sliceNode)
        field = sliceNode.GetFieldOfView()
        modifying = sliceNode.StartModify()
        sliceLogic.FitSliceToBackground()
        fitted = sliceNode.GetFieldOfView()
        setSliceGeometry(sliceNode, before)
        sliceNode.EndModify(modifying)
        return all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(field[:2], fitted[:2]))

    def _sliceLogic(self, sliceNode: vtkMRMLSliceNode | None) -> Any:
        logic = self._applicationLogic
        if logic is None and getattr(slicer, "app", None) is not None:
            logic = slicer.app.applicationLogic()
        return logic.GetSliceLogic(sliceNode) if logic is not None and sliceNode is not None else None

    def _composites(self) -> list[Any]:
        scene = Placement.sceneOf(self._psr)
        count = scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
        return [scene.GetNthNodeByClass(i, "vtkMRMLSliceCompositeNode") for i in range(count)]

    @staticmethod
    def _sliceNode(composite: vtkMRMLSliceCompositeNode) -> vtkMRMLSliceNode | None:
        return slicer.vtkMRMLSliceLogic.GetSliceNode(composite)

    def _check(
        self, view: str, uncertaintyNode: vtkMRMLScalarVolumeNode | None, psrNode: vtkMRMLScalarVolumeNode
    ) -> None:
        if view not in ("psr", "uncertainty"):
            raise InputError(_("The overlay shows psr or uncertainty, not {name}.").format(name=view))
        if view == "uncertainty" and uncertaintyNode is None:
            raise InputError(
                _(
                    "{name} has no uncertainty map; synthesize with two seeds or more, or with a model that has a mean."
                ).format(name=psrNode.GetName())
            )

    # --- what happens in the scene ------------------------------------------------------------------------------

    def _observe(self, scene: vtkMRMLScene) -> None:
        if self._observed:
            return

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(caller: Any, event: str, node: vtkMRMLNode | None) -> None:
            if node is not None and node.IsA("vtkMRMLSliceCompositeNode") and self.isShown:
                self._apply(node)
                self._updateLegends()

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removed(caller: Any, event: str, node: vtkMRMLNode | None) -> None:
            if node is None or not self.isShown:
                return
            if node is self._psr or node is self._t1:
                self.hide()
            elif node is self._uncertainty:
                if self.view == "uncertainty":
                    self.setView("psr")
                self._uncertainty = None

        def closing(caller: Any, event: str) -> None:
            # Nothing to give back in a scene that goes away.
            self._state.forget()
            self.hide()

        for event, function in (
            (slicer.vtkMRMLScene.NodeAddedEvent, added),
            (slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, removed),
            (slicer.vtkMRMLScene.StartCloseEvent, closing),
        ):
            self._observed.append((scene, scene.AddObserver(event, function)))


def _widen(sliceNode: vtkMRMLSliceNode) -> None:
    """Room for the legend and the note beside the brain."""
    field = sliceNode.GetFieldOfView()
    sliceNode.SetFieldOfView(field[0] * MARGIN, field[1] * MARGIN, field[2])
