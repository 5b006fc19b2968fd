"""Slicer's own slice views, off screen, and small things that tests of the Slicer module need.

Scene, logics and views are real (slicer-core, trame-slicer); see :mod:`slicer_app` for what is stood in for.
"""

from __future__ import annotations

import numpy as np
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
import vtk  # noqa: E402
from DEMISTSlicerLib.Nodes import Voxels  # noqa: E402
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

SIZE = 300
_views: dict[str, object] = {}


def fresh() -> object:
    """A scene as after File > Close Scene, with Slicer's own colour tables (its colour logic adds them again)."""
    scene = slicer_app.fresh_scene()
    if scene.GetNodeByID("vtkMRMLColorTableNodeGrey") is None:
        slicer_app.app().app_logic.GetColorLogic().AddDefaultColorNodes()
    if scene.GetFirstNodeByClass("vtkMRMLLayoutNode") is None:
        scene.AddNode(slicer.vtkMRMLLayoutNode())  # Slicer's layout manager does so
    return scene


def views() -> dict[str, object]:
    """Axial, coronal and sagittal slice view by Slicer's names of them; made once."""
    if not _views:
        from trame_slicer.views import DirectViewFactory, ViewLayoutDefinition

        manager = slicer_app.app().view_manager
        manager.register_factory(DirectViewFactory(do_render_offscreen=True))
        for name in ("axial_view", "coronal_view", "sagittal_view"):
            view = manager.create_view(getattr(ViewLayoutDefinition, name)())
            view.render_window().SetMultiSamples(0)
            resize(view, SIZE)
            _views[view.name] = view
    return _views


def resize(view: object, size: int) -> None:
    view.render_window().SetSize(size, size)
    view.update_size(size, size)
    view._logic.ResizeSliceNode(size, size)


def picture(view: object) -> np.ndarray:
    """What a slice view shows, (rows, columns, 3) uint8, the upper row first."""
    view.render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(view.render_window())
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()


def at(view: object, ras: tuple[float, float, float]) -> tuple[int, int]:
    """Row and column of the pixel of a view that shows a world point of the view's plane."""
    node = view.get_view_node()
    toXy = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(node.GetXYToRAS(), toXy)
    x, y, *_ = toXy.MultiplyPoint((*ras, 1.0))
    return node.GetDimensions()[1] - 1 - int(np.floor(y + 0.5)), int(np.floor(x + 0.5))


def volume(array: np.ndarray, affine: np.ndarray | None = None, name: str = "T1w") -> object:
    """A scalar volume node in the scene, with display; ``array`` (i, j, k)."""
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(name)
    node.SetIJKToRASMatrix(Voxels.matrixFromArray(np.eye(4) if affine is None else affine))
    node.SetAndObserveImageData(Voxels.imageFromArray(array))
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    return node


def transform(matrix: np.ndarray, name: str = "Moved") -> object:
    """A linear transform node in the scene."""
    node = slicer.vtkMRMLLinearTransformNode()
    node.SetName(name)
    node.SetMatrixTransformToParent(Voxels.matrixFromArray(matrix))
    slicer.mrmlScene.AddNode(node)
    return node


def rigid(angles: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    """(4, 4): rotation by three angles (radians), then a shift in mm."""
    matrix = np.eye(4)
    for axis, angle in enumerate(angles):
        turn = np.eye(4)
        i, j = [a for a in range(3) if a != axis]
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    matrix[:3, 3] = shift
    return matrix


def grid(spacing: tuple[float, float, float], turn: np.ndarray | None = None) -> np.ndarray:
    """(4, 4): voxel to RAS of an oblique grid of that spacing."""
    return (np.eye(4) if turn is None else turn) @ np.diag([*spacing, 1.0])


def worldOf(node: object, ijk: np.ndarray) -> np.ndarray:
    """World coordinates of voxels (n, 3), as Slicer itself works them out, through whatever transforms there are."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    general = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, general)
    return np.array([general.TransformPoint(matrix.MultiplyPoint((*map(float, v), 1.0))[:3]) for v in ijk])


def saveAndLoad(folder: object, kind: str = "mrb") -> None:
    """Save the scene as Slicer does (all in one .mrb, or data files beside the .mrml), close it, load it."""
    scene = slicer.mrmlScene
    path = folder / f"scene.{kind}"
    scene.SetURL(str(path))
    scene.SetRootDirectory(str(folder))
    if kind == "mrb":
        assert scene.WriteToMRB(str(path))
    else:
        _writeData(scene, folder)
        assert scene.Commit()
    fresh()
    manager = slicer_app.app().io_manager
    assert manager.load_scene(path)


def _writeData(scene: object, folder: object) -> None:
    """What Slicer's Save dialog does for the data of each node: give it a file, write that."""
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLStorableNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLStorableNode")
        if not node.GetSaveWithScene():
            continue
        node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        if storage is not None:
            storage.SetFileName(str(folder / f"{node.GetID()}.{storage.GetDefaultWriteFileExtension()}"))
            assert storage.WriteData(node), node.GetName()
