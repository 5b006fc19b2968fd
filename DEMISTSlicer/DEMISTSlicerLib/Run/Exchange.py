"""Volume nodes to files and back, in slabs, so that the main thread is never held up for long.

The format is that of :mod:`DEMISTCore.worker.exchange`: ``.npy`` in Fortran order, the order that VTK keeps voxels in,
and an affine, voxel to RAS mm.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk

from ..I18n import _
from ..Nodes import Voxels
from ..Nodes.Segmentation import segmentationToLabelmap
from ..RunError import RunError

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTransformableNode, vtkMRMLVolumeNode

#: Bytes written or read at a time: a few milliseconds, also on slow disks.
SLAB = 4 << 20


def affineInFrameOf(
    node: vtkMRMLVolumeNode | vtkMRMLSegmentationNode, relativeTo: vtkMRMLTransformableNode | None = None
) -> np.ndarray:
    """Voxel index to RAS mm, (4, 4), in the node's own space, or in that of another node.

    The T1w keeps its own IJKToRAS: results lie on it and share its transform. A FLAIR under another transform has its
    place expressed in the T1w's space.
    """
    affine = Voxels.affineOf(node)
    mine = node.GetParentTransformNode()
    other = None if relativeTo is None else relativeTo.GetParentTransformNode()
    if relativeTo is None or mine is other:
        return affine
    between = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(mine, other, between)
    return Voxels.arrayFromMatrix(between) @ affine


def writeNode(
    node: vtkMRMLVolumeNode | vtkMRMLSegmentationNode,
    folder: Path,
    name: str,
    relativeTo: vtkMRMLTransformableNode | None = None,
    gridOf: vtkMRMLScalarVolumeNode | None = None,
    segment: str | None = None,
) -> Generator[None, None, dict[str, Any]]:
    """Write a volume node slab by slab as ``name``.npy into ``folder``.

    Args:
        node: volume, or segmentation: then it becomes a mask on the grid of ``gridOf``.
        folder: where to.
        name: of the file.
        relativeTo: node in whose space the place is told.
        gridOf: volume node; None: ``relativeTo``.
        segment: ID of the only segment wanted; None: all that hold lesions.

    Returns:
        The reference (as the generator's value).

    Raises:
        RunError: it cannot be written, because the disk is full.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        grid = relativeTo if gridOf is None else gridOf
        array = segmentationToLabelmap(node, grid, None if segment is None else [segment])
        yield
        return (yield from writeArray(array, affineInFrameOf(grid, relativeTo), folder, name))
    # The view keeps the voxels alive if the node is deleted in between.
    return (yield from writeArray(Voxels.arrayFromNode(node), affineInFrameOf(node, relativeTo), folder, name))


def writeArray(array: np.ndarray, affine: np.ndarray, folder: Path, name: str) -> Generator[None, None, dict[str, Any]]:
    """Write an array (X, Y, Z) slab by slab; see :func:`writeNode`."""
    path = Path(folder) / f"{name}.npy"
    slabs = array.T  # (Z, Y, X): whole slices lie together in memory
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": True, "shape": tuple(array.shape)}
    try:
        with open(path, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for start, stop in _slabs(slabs):
                np.ascontiguousarray(slabs[start:stop]).tofile(stream)
                yield
    except OSError as error:
        path.unlink(missing_ok=True)
        raise RunError("input", _diskSentence(path, error)) from error
    return {"npy": str(path), "affine": affine.tolist()}


def readReference(
    reference: dict[str, Any], change: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> Generator[None, None, tuple[np.ndarray, np.ndarray]]:
    """Read what the worker wrote, slab by slab; ``change`` makes each slab another of the same shape.

    Returns:
        Array (X, Y, Z) in Fortran order, and affine (4, 4); as the generator's value.

    Raises:
        RunError: the file is gone or damaged.
    """
    try:
        source = np.load(reference["npy"], mmap_mode="r", allow_pickle=False).T
        slabs = np.empty(source.shape, change(source[:0]).dtype)
        for start, stop in _slabs(source):
            slabs[start:stop] = change(source[start:stop])
            yield
    except (OSError, ValueError) as error:
        raise RunError("internal", _("A result could not be read ({error}); run again.").format(error=error)) from error
    return slabs.T, np.array(reference["affine"], float)


def _slabs(array: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of the first axis that hold about :data:`SLAB` bytes each."""
    each = max(1, SLAB // max(1, array[:1].nbytes))
    return [(start, min(start + each, len(array))) for start in range(0, len(array), each)]


def _diskSentence(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return _(
            "There is no space left in Slicer's temporary folder {folder}; free some, or choose another folder in "
            "Edit > Application Settings > General."
        ).format(folder=path.parent)
    return _(
        "Slicer's temporary folder {folder} cannot be written to ({reason}); choose another folder in Edit > "
        "Application Settings > General."
    ).format(folder=path.parent, reason=error.strerror or error)
