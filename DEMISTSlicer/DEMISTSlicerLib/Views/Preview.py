"""The running estimate in the slice views while it is being denoised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from ..I18n import _
from ..Nodes import Placement, Voxels
from ..Nodes.Volumes import describe, setUpDisplay
from .Overlay import Overlay

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


class LivePreview:
    """A temporary volume over the T1w that follows the estimate and leaves no trace.

    It is not saved with the scene and not offered in volume selectors. The views' settings are put back at the end;
    so is a map that was shown before.
    """

    def __init__(self, overlay: Overlay | None = None) -> None:
        self._overlay = overlay or Overlay()
        self._t1 = None
        self.node: Any = None

    @property
    def isRunning(self) -> bool:
        """Whether :meth:`begin` was called and the T1w is still there."""
        return self._t1 is not None and self._t1.GetScene() is not None

    def begin(self, t1Node: vtkMRMLScalarVolumeNode, opacity: float = 0.6) -> None:
        """Get ready to show estimates over ``t1Node``; the volume appears with the first one."""
        self.end()
        self._t1 = t1Node
        self._overlay.opacity = opacity

    def update(self, array: np.ndarray, affine: np.ndarray, seed: int, step: int, steps: int) -> Any:
        """Show an estimate.

        Args:
            array: (i, j, k) PSR, fraction, on any grid.
            affine: (4, 4) voxel to RAS in the T1w's own frame.
            seed, step, steps: how far it is.

        Returns:
            The preview's node; None if there is nothing to show it over (any more).
        """
        if not self.isRunning:
            self.end()
            return None
        if self.node is not None and self.node.GetScene() is None:
            self.node = None  # the user has deleted it: make a new one
        first = self.node is None
        if first:
            self.node = slicer.vtkMRMLScalarVolumeNode()
            self.node.SetName(_("PSR preview"))
            self.node.SetSaveWithScene(0)
            self.node.SetHideFromEditors(1)
            self._t1.GetScene().AddNode(self.node)
            setUpDisplay(self.node)  # before the voxels come: Slicer would work out a window of its own for them
        modifying = self.node.StartModify()
        self.node.SetIJKToRASMatrix(Voxels.matrixFromArray(affine))
        Voxels.setArray(self.node, np.asarray(array, np.float32))
        Placement.followTransform(self.node, self._t1)
        text = _("PSR preview: seed {seed}, step {step} of {steps}").format(seed=seed, step=step, steps=steps)
        self.node.SetName(text)
        self.node.EndModify(modifying)
        if first:
            describe(self.node, "Preview", {"statement": _("A running estimate, not a result.")})
            for index in range(self.node.GetNumberOfDisplayNodes()):
                self.node.GetNthDisplayNode(index).SetSaveWithScene(0)
            self._overlay.show(self.node, self._t1, self._overlay.opacity)
        return self.node

    def end(self) -> None:
        """Take the preview away and put the views back. May be called at any time, and again."""
        self._overlay.hide()
        node, self.node, self._t1 = self.node, None, None
        if node is None or node.GetScene() is None:
            return
        scene = node.GetScene()
        for display in [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]:
            scene.RemoveNode(display)
        scene.RemoveNode(node)
