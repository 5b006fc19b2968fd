"""The statistics as a table node, and as a CSV file."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import slicer
import vtk

from ..Errors import InputError
from ..I18n import _
from ..Numbers import finite
from . import Placement

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLTableNode

#: Columns that say where a lesion lies: RAS mm in the frame of the volume that the table refers to.
POSITION_COLUMNS = ("R", "A", "S")
#: Columns that hold whole numbers or text; all others hold numbers with a fraction.
_WHOLE = ("lesion", "lesion_before", "voxels", "missing")
_TEXT = ("region", "name", "black_hole", "beyond_error")
#: Headings for people; other columns are called as in the core's files.
_TITLES = {
    "region": _("region"),
    "lesion": _("lesion"),
    "name": _("name"),
    "black_hole": _("T1 black hole"),
    "volume_ml": _("volume (mL)"),
    "mean": _("mean PSR"),
    "sd": _("SD"),
    "median": _("median PSR"),
    "iqr": _("IQR"),
    "mean_ci90_low": _("true mean from (90 %)"),
    "mean_ci90_high": _("to (90 %)"),
    "uncertainty": _("SD of voxels"),
    "seed_sd": _("SD over seeds (no error bar)"),
    "lesion_before": _("lesion before"),
    "volume_ml_before": _("volume before (mL)"),
    "volume_ml_after": _("volume after (mL)"),
    "volume_change_ml": _("volume change (mL)"),
    "mean_before": _("mean PSR before"),
    "mean_after": _("mean PSR after"),
    "difference": _("PSR difference"),
    "difference_ci90_low": _("true difference from (90 %)"),
    "difference_ci90_high": _("to (90 %)"),
    "percent": _("difference (%)"),
    "beyond_error": _("beyond error"),
}
#: Units by column, as shown in the table's heading.
_UNITS = {"volume_ml": "mL", **dict.fromkeys(POSITION_COLUMNS, "mm")}
_POSITION = {
    "R": "position in the lesion, mm to the right, in the frame of the volume",
    "A": "position in the lesion, mm to the front",
    "S": "position in the lesion, mm upwards",
}


def statisticsTable(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str] | Iterable[str],
    name: str | None = None,
    positions: Mapping[int, Sequence[float]] | None = None,
    volumeNode: vtkMRMLScalarVolumeNode | None = None,
    node: vtkMRMLTableNode | None = None,
    kind: str = "Statistics",
) -> vtkMRMLTableNode:
    """Rows of DEMISTCore.statistics as a vtkMRMLTableNode.

    Columns without any value (seeds that there were not) are left out. In whole numbers, 0 stands for "none" (the
    lesion's number in a row about a whole region); in fractions, "nan" does.

    Args:
        rows: by column name; None and NaN are missing values.
        columns: names in order, with what they mean, if it is a mapping.
        name: of a new node.
        positions: (R, A, S) in mm by lesion, as :func:`.Jump.lesionPositions` finds them; for columns of their own.
        volumeNode: the map; the table refers to it and goes beside it.
        node: table to fill; None makes one.
        kind: what its attribute ``DEMIST.Table`` says.
    """
    meanings = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns, "")
    rows = [dict(row) for row in rows]
    if positions:
        meanings |= _POSITION
        for row in rows:
            point = positions.get(row.get("lesion") or 0)
            if point is not None:
                row.update(zip(POSITION_COLUMNS, (float(v) for v in point)))
    scene = Placement.sceneOf(node, volumeNode)
    if node is None:
        node = slicer.vtkMRMLTableNode()
        node.SetName(scene.GenerateUniqueName(name or _("PSR statistics")))
        scene.AddNode(node)
    elif name:
        node.SetName(name)
    table = vtk.vtkTable()
    kept = [key for key in meanings if key in ("region", "lesion", "name") or any(_given(r.get(key)) for r in rows)]
    for key in kept:
        table.AddColumn(_column(key, [row.get(key) for row in rows]))
    modifying = node.StartModify()
    node.RemoveAllColumns()
    node.SetAndObserveTable(table)
    for key in kept:
        node.SetColumnDescription(key, meanings[key])
        node.SetColumnTitle(key, _TITLES.get(key, key))
        if key in _UNITS:
            node.SetColumnUnitLabel(key, _UNITS[key])
    node.SetUseColumnTitleAsColumnHeader(True)
    # Figures that are read off should not be typed over by accident; CSV is for those who work on.
    node.SetLocked(True)
    node.SetAttribute("DEMIST.Table", kind)
    if volumeNode is not None:
        node.SetNodeReferenceID(Placement.VOLUME_REFERENCE, volumeNode.GetID())
    node.EndModify(modifying)
    if volumeNode is not None:
        Placement.placeBeside(node, volumeNode)
    return node


def rowsOf(node: vtkMRMLTableNode) -> list[dict[str, Any]]:
    """The rows of a table node, missing values as None: the way back from :func:`statisticsTable`."""
    table = node.GetTable()
    columns = [table.GetColumn(i) for i in range(table.GetNumberOfColumns())]
    return [{c.GetName(): _value(c.GetName(), c.GetValue(r)) for c in columns} for r in range(table.GetNumberOfRows())]


def exportCsv(node: vtkMRMLTableNode | None, path: str | os.PathLike[str]) -> str:
    """Write a table node as CSV (UTF-8, missing values empty); TSV if the name ends in ``.tsv``. Never half a file.

    Returns:
        The path.

    Raises:
        InputError: the table is empty, or the file cannot be written.
    """
    if node is None or node.GetTable() is None or not node.GetNumberOfColumns():
        raise InputError(_("There is no table to export; compute the statistics first."))
    table = node.GetTable()
    names = [table.GetColumn(i).GetName() for i in range(table.GetNumberOfColumns())]
    from DEMISTCore.files import atomic_path

    tabs = os.fspath(path).endswith(".tsv")
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t" if tabs else ",", lineterminator="\n")
        writer.writerow(names)
        for row in rowsOf(node):
            writer.writerow([_text(row[name], "n/a" if tabs else "") for name in names])
    return os.fspath(path)


def showTable(node: vtkMRMLTableNode, applicationLogic: Any = None) -> None:
    """Show a table in the layout's table view, where there is one."""
    logic = applicationLogic or slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveTableID(node.GetID())
    logic.PropagateTableSelection()


# --- cells --------------------------------------------------------------------------------------------------------


def _column(key: str, values: Sequence[Any]) -> Any:
    if key in _TEXT:
        column = vtk.vtkStringArray()
        cells = [_word(value) for value in values]
    elif key in _WHOLE:
        column = vtk.vtkIntArray()
        cells = [int(value) if _given(value) else 0 for value in values]
    else:
        column = vtk.vtkDoubleArray()
        # Six digits, as in the core's files: all others are noise, and would crowd the table.
        cells = [float(f"{float(value):.6g}") if _given(value) else math.nan for value in values]
    column.SetName(key)
    for cell in cells:
        column.InsertNextValue(cell)
    return column


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "True" if value else "False"
    return "" if value is None else str(value)


def _given(value: Any) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return finite(value)
    return value is not None and value != ""


def _value(name: str, cell: Any) -> Any:
    if name == "lesion":
        return int(cell) or None
    if name == "black_hole":
        return {"True": True, "False": False}.get(cell)
    return cell if _given(cell) else None


def _text(value: Any, missing: str) -> str:
    if not _given(value):
        return missing
    return f"{value:.6g}" if isinstance(value, float) else str(value)
