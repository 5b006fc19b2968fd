"""The nodes of the statistics: made, and found again where a map is measured once more."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ..I18n import _
from ..Nodes import Charts, Tables
from ..Nodes.Placement import SEGMENTATION_REFERENCE
from ..Nodes.Segmentation import editStamp
from .ResultNodes import makeSegments, present
from .StatisticsResult import StatisticsResult

if TYPE_CHECKING:
    from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode


class StatisticsNodes:
    """Table, segmentation and charts, made from what the worker has measured.

    Remembers each segmentation as it was made, so that one that a person has worked on is not written over.
    """

    def __init__(self) -> None:
        self._stamps: dict[str, tuple[int, ...]] = {}

    def unedited(
        self, table: vtkMRMLTableNode, lesions: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode
    ) -> vtkMRMLSegmentationNode | None:
        """The segmentation made with a statistics table, if nobody has worked on it since; None otherwise."""
        made = None if table is None else table.GetNodeReference(SEGMENTATION_REFERENCE)
        if made is None or made is lesions:
            return None
        return made if self._stamps.get(made.GetID()) == editStamp(made) else None

    def isEdited(self, segmentation: vtkMRMLSegmentationNode) -> bool:
        """Whether somebody has worked on a segmentation since its statistics; of an earlier session nobody knows."""
        stamp = self._stamps.get(segmentation.GetID())
        return stamp is not None and stamp != editStamp(segmentation)

    def make(
        self,
        message: dict[str, Any],
        psr: vtkMRMLScalarVolumeNode,
        segmentation: vtkMRMLSegmentationNode | None = None,
        table: vtkMRMLTableNode | None = None,
    ) -> Generator[Any, None, StatisticsResult]:
        """The nodes of a ``done`` message, as in :mod:`.ResultNodes`; the charts go where the table's are."""
        name = psr.GetName()
        positions = {int(number): tuple(point) for number, point in message["positions"].items()}
        segments = yield from makeSegments(message, psr, segmentation)
        tableNode = Tables.statisticsTable(
            message["rows"],
            message["columns"],
            _("{name} statistics").format(name=name),
            node=present(table),
            positions=positions,
            volumeNode=psr,
        )
        yield True
        summary = message["summary"]
        oldRoc, oldBoxes = Charts.chartsOf(tableNode)
        rocChart = None
        if any(contrast["voxel"] for contrast in summary["roc"]["against"].values()):
            rocChart = Charts.rocChart(summary, name=_("{name} ROC").format(name=name), node=oldRoc, besides=psr)
            yield True
        elif oldRoc is not None:  # of lesions that are no longer there
            Charts.removeChart(oldRoc)
        boxes = Charts.boxPlotChart(
            message["rows"], name=_("{name} by region").format(name=name), node=oldBoxes, besides=psr
        )
        Charts.linkCharts(tableNode, rocChart, boxes)
        tableNode.SetNodeReferenceID(SEGMENTATION_REFERENCE, segments.GetID() if segments is not None else None)
        if segments is not None:
            self._stamps[segments.GetID()] = editStamp(segments)
        return StatisticsResult(
            tableNode,
            segments,
            rocChart,
            boxes,
            message["rows"],
            summary,
            message["notes"],
            message["statement"],
            bool(message["suggested"]),
            str(message.get("report") or ""),
            message["warnings"],
        )
