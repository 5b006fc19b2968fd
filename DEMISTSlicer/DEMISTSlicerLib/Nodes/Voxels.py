"""Voxels between numpy and MRML: arrays with axes (i, j, k), as the core has them, and where they lie in the world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk, vtk_to_numpy

from ..Errors import InputError
from ..I18n import _

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

#: Two affines are the same place if no corner of the volume moves by more than this (mm).
SAME_PLACE_MM = 1e-2


def imageFromArray(array: np.ndarray) -> vtk.vtkImageData:
    """A vtkImageData that holds a copy of ``array`` (i, j, k), of its own data type; booleans become uint8.

    Arrays in Fortran order are copied without reordering, which is several times faster.
    """
    if array.ndim != 3:
        raise InputError(_("A volume has three axes, not {n}.").format(n=array.ndim))
    if array.dtype == bool:
        array = array.astype(np.uint8)
    flat = np.ascontiguousarray(array.T).reshape(-1)
    scalars = numpy_to_vtk(flat, deep=True, array_type=get_vtk_array_type(flat.dtype))
    scalars.SetName("ImageScalars")
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape)
    image.GetPointData().SetScalars(scalars)
    return image


def setArray(node: vtkMRMLScalarVolumeNode, array: np.ndarray) -> None:
    """Give a volume node the voxels of ``array`` (i, j, k), in its own memory if size and type allow it."""
    image = node.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    fits = scalars is not None and image.GetDimensions() == array.shape
    if fits and scalars.GetDataType() == get_vtk_array_type(np.dtype(np.uint8 if array.dtype == bool else array.dtype)):
        vtk_to_numpy(scalars).reshape(array.shape[::-1])[:] = array.T
        scalars.Modified()
        image.Modified()
    else:
        node.SetAndObserveImageData(imageFromArray(array))


def arrayFromNode(node: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """The voxels of a scalar volume, (i, j, k), as a view on its memory.

    Raises:
        InputError: the volume has no voxels, or several values in each.
    """
    image = node.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    if scalars is None or not scalars.GetNumberOfTuples():
        raise InputError(_("{name} holds no image; load it again.").format(name=node.GetName()))
    if scalars.GetNumberOfComponents() != 1:
        raise InputError(_("{name} is a colour or vector image; choose a scalar volume.").format(name=node.GetName()))
    return vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1]).T


def arrayFromMatrix(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """(4, 4) float64."""
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def matrixFromArray(array: np.ndarray) -> vtk.vtkMatrix4x4:
    """The vtkMatrix4x4 of a (4, 4) array."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, np.float64).ravel().tolist())
    return matrix


def shapeOf(node: vtkMRMLScalarVolumeNode) -> tuple[int, int, int]:
    """Voxels along i, j, k; zeros without an image."""
    image = node.GetImageData()
    return (0, 0, 0) if image is None else tuple(image.GetDimensions())


def affineOf(node: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """The node's own voxel-to-RAS matrix, (4, 4); its parent transform is left out."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return arrayFromMatrix(matrix)


def parentMatrix(node: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """What the node's parent transforms do to its RAS coordinates, (4, 4).

    Raises:
        InputError: they are not linear, so no matrix says it.
    """
    matrix = vtk.vtkMatrix4x4()
    transform = node.GetParentTransformNode()
    if transform is not None:
        if not transform.IsTransformToWorldLinear():
            raise InputError(
                _("{name} is under the non-linear transform {transform}; harden it (Transforms module) first.").format(
                    name=node.GetName(), transform=transform.GetName()
                )
            )
        transform.GetMatrixTransformToWorld(matrix)
    return arrayFromMatrix(matrix)


def worldAffine(node: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """Voxel to world, (4, 4): the node's own matrix and its parent transforms. Raises as :func:`parentMatrix`."""
    return parentMatrix(node) @ affineOf(node)


def samePlace(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether both affines put every corner of a volume of ``shape`` at the same place."""
    corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], float).T
    return bool(np.abs((np.asarray(a) - np.asarray(b)) @ corners).max() <= SAME_PLACE_MM)


def orientedImage(image: vtk.vtkImageData, affine: np.ndarray) -> Any:
    """``image`` with its place, as segmentations want it (vtkOrientedImageData); the voxels are shared."""
    oriented = slicer.vtkOrientedImageData()
    oriented.ShallowCopy(image)
    oriented.SetImageToWorldMatrix(matrixFromArray(affine))
    return oriented
