"""What the tests of runs in Slicer share: volume nodes of small heads, and a logic with a real child process."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import slicer_app

#: Longest wait for anything (seconds); an idle machine needs a small part of it.
LONG = 240.0
#: Settings with which the tiny model runs in a second on the small head.
QUICK = {"bundle": "tiny", "device": "cpu", "seeds": 2, "register": False, "biasCorrect": False}


def volume(array: np.ndarray, affine: np.ndarray, name: str) -> Any:
    """A scalar volume node in the scene; ``array`` (X, Y, Z), ``affine`` voxel to RAS."""
    import slicer
    from DEMISTSlicerLib.Nodes import Voxels

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetIJKToRASMatrix(Voxels.matrixFromArray(affine))
    node.SetAndObserveImageData(Voxels.imageFromArray(array))
    return node


def load(path: Path, name: str) -> Any:
    """An image file as a volume node, of the file's own number type."""
    from DEMISTCore.volume import Volume

    read = Volume.read(path, dtype=None)
    return volume(read.array, read.affine, name)


def linear_transform(matrix: np.ndarray, name: str = "Linear") -> Any:
    """A linear transform node in the scene."""
    import slicer
    from DEMISTSlicerLib.Nodes import Voxels

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(Voxels.matrixFromArray(matrix))
    return node


def warp(name: str = "Warp") -> Any:
    """A non-linear transform node in the scene: a thin-plate spline that moves one point."""
    import slicer
    import vtk

    spline = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for x, y, z in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (-50, -50, -50)):
        source.InsertNextPoint(x, y, z)
        target.InsertNextPoint(x, y + (5 if x == 50 else 0), z)
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    node.SetAndObserveTransformToParent(spline)
    return node


def turn(degrees: float, shift: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """A rotation about z and a shift, (4, 4)."""
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


def to_world(node: Any, ijk: np.ndarray) -> np.ndarray:
    """World position of a voxel, through the node's own matrix and all its transforms, as Slicer's views do it."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ras = matrix.MultiplyPoint([*map(float, ijk), 1.0])[:3]
    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld(ras, world)
    return np.array(world)


def names() -> list[str]:
    """All nodes of the scene, as class and name."""
    import slicer

    scene = slicer.mrmlScene
    nodes = (scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes()))
    return sorted(f"{node.GetClassName()} {node.GetName()}" for node in nodes)


def drain(generator: Generator[Any, None, Any]) -> Any:
    """Run a generator of small steps to its end; its value."""
    while True:
        try:
            next(generator)
        except StopIteration as stopped:
            return stopped.value


def is_gone(pid: int) -> bool:
    """True if there is no such process, or only its exit code is left."""
    import psutil

    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def logic_with(bundles: Path) -> Iterator[Any]:
    """A logic that finds the tiny model, shut down at the end; no process of it is left."""
    slicer_app.install()
    from DEMISTSlicerLib.Logic import DEMISTSlicerLogic

    before = os.environ.get("DEMIST_BUNDLES")
    os.environ["DEMIST_BUNDLES"] = str(bundles)
    logic = DEMISTSlicerLogic()
    try:
        yield logic
    finally:
        pid = None if logic._worker.process is None else logic._worker.process.pid
        logic.shutdown()
        slicer_app.process_events(0.05)
        assert pid is None or slicer_app.wait_until(lambda: is_gone(pid), LONG)
        if before is None:
            del os.environ["DEMIST_BUNDLES"]
        else:
            os.environ["DEMIST_BUNDLES"] = before


class Recorder:
    """Keeps what a logic's signals say."""

    def __init__(self, logic: Any) -> None:
        self.logic = logic
        self.progress: list[tuple[str, float, float | None]] = []
        self.log: list[str] = []
        self.ends: list[tuple[Any, ...]] = []
        self._handles = [
            (signal, signal.connect(slot))
            for signal, slot in (
                (logic.progressChanged, lambda *told: self.progress.append(told)),
                (logic.logMessage, self.log.append),
                (logic.finished, lambda result: self.ends.append(("finished", result))),
                (logic.failed, lambda kind, message: self.ends.append(("failed", kind, message))),
                (logic.cancelled, lambda: self.ends.append(("cancelled",))),
            )
        ]

    @property
    def stages(self) -> list[str]:
        """Stages in the order they began."""
        return list(dict.fromkeys(stage for stage, _done, _left in self.progress))

    def wait(self) -> tuple[Any, ...]:
        """Let the application work until the run is over; what it ended with."""
        assert slicer_app.wait_until(lambda: self.ends and not self.logic.isRunning, LONG), "the run does not end"
        return self.ends[-1]

    def close(self) -> None:
        """Listen no more."""
        for signal, handle in self._handles:
            signal.disconnect(handle)
