"""From a lesion's row in the table to the lesion in the slice views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk

from ..Errors import InputError
from ..I18n import _
from ..Nodes import Placement
from ..Nodes.Tables import POSITION_COLUMNS

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLTableNode


def lesionPositions(numbers: np.ndarray, affine: np.ndarray) -> dict[int, tuple[float, float, float]]:
    """Where each numbered lesion lies: its voxel nearest to its centre of mass, so that the point is inside it.

    Args:
        numbers: (i, j, k), 0 outside, 1 to n in lesions.
        affine: (4, 4) voxel to RAS.

    Returns:
        (R, A, S) in mm by number.
    """
    where = np.argwhere(numbers > 0)
    if not where.size:
        return {}
    of = np.asarray(numbers)[tuple(where.T)].astype(np.int64)
    world = where @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]
    found = {}
    for number in np.unique(of):
        points = world[of == number]
        nearest = points[np.argmin(((points - points.mean(0)) ** 2).sum(1))]
        found[int(number)] = tuple(float(v) for v in nearest)
    return found


def lesionOfRow(tableNode: vtkMRMLTableNode | None, row: int) -> int:
    """The lesion that row ``row`` (from 0) of a statistics table is about; 0 for a whole region or no such row."""
    column = tableNode.GetTable().GetColumnByName("lesion") if tableNode is not None else None
    if column is None or not 0 <= row < column.GetNumberOfValues():
        return 0
    return int(column.GetValue(row))


def lesionPoint(number: int, tableNode: vtkMRMLTableNode) -> tuple[float, float, float]:
    """World coordinates (RAS, mm) of a lesion of a statistics table; the volume's transforms are applied.

    Raises:
        InputError: the table does not know the lesion, or where it lies.
    """
    table = tableNode.GetTable() if tableNode is not None else None
    columns = [table.GetColumnByName(name) for name in POSITION_COLUMNS] if table is not None else [None]
    if any(column is None for column in columns):
        raise InputError(_("This table does not say where lesions lie; compute the statistics again."))
    for row in range(table.GetNumberOfRows()):
        if lesionOfRow(tableNode, row) == number and number > 0:
            point = [float(column.GetValue(row)) for column in columns]
            if np.isfinite(point).all():
                return _toWorld(point, tableNode.GetNodeReference(Placement.VOLUME_REFERENCE))
    raise InputError(
        _("{table} has no lesion {number}; choose a row of a single lesion.").format(
            table=tableNode.GetName(), number=number
        )
    )


def jumpToLesion(number: int, tableNode: vtkMRMLTableNode, centre: bool = True) -> tuple[float, float, float]:
    """Show a lesion in all slice views, and put the crosshair on it.

    Args:
        number: of the lesion, as in column ``lesion``.
        tableNode: the statistics table.
        centre: bring it to the middle of the views; else only scroll to its slice.

    Returns:
        Where it is (world, RAS mm).

    Raises:
        InputError: as :func:`lesionPoint`.
    """
    point = lesionPoint(number, tableNode)
    scene = Placement.sceneOf(tableNode)
    node = slicer.vtkMRMLSliceNode
    node.JumpAllSlices(scene, *point, node.CenteredJumpSlice if centre else node.OffsetJumpSlice)
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(point)
    return point


def jumpToRow(tableNode: vtkMRMLTableNode, row: int) -> tuple[float, float, float] | None:
    """What a click on row ``row`` (from 0) does: jump to its lesion; None if the row is about a whole region."""
    number = lesionOfRow(tableNode, row)
    return jumpToLesion(number, tableNode) if number else None


def _toWorld(point: list[float], volumeNode: vtkMRMLScalarVolumeNode) -> tuple[float, float, float]:
    transform = volumeNode.GetParentTransformNode() if volumeNode is not None else None
    if transform is None:
        return tuple(point)
    # Any transform will do here, also one that is not linear.
    toWorld = vtk.vtkGeneralTransform()
    transform.GetTransformToWorld(toWorld)
    return tuple(toWorld.TransformPoint(point))
