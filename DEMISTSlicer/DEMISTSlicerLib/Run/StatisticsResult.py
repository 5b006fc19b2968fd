"""What was measured in a PSR map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slicer import vtkMRMLPlotChartNode, vtkMRMLSegmentationNode, vtkMRMLTableNode


@dataclass
class StatisticsResult:
    """Nodes in the scene, and the numbers behind them.

    Attributes:
        table: vtkMRMLTableNode, one row per region, then one per lesion.
        segmentation: lesions, proximal and distal NAWM; None if there are none.
        roc: chart node of the ROC curves; None if there is no curve.
        boxPlot: chart node of PSR by region.
        rows: the table as dictionaries; numbers that cannot be had are None.
        summary: all of it, as the command line writes it to statistics.json: ROC curves with intervals, comparison.
        notes: plain sentences: what was resampled, suggested or left out, and why.
        warnings: those of them that say that numbers may be wrong, as where a measured map lies off the T1w.
        statement: the sentence that belongs below every output.
        suggested: True if the lesions were suggested, not drawn.
        report: the page that was written, if one was asked for.
        seconds: from the call to the result.
    """

    table: vtkMRMLTableNode | None = None
    segmentation: vtkMRMLSegmentationNode | None = None
    roc: vtkMRMLPlotChartNode | None = None
    boxPlot: vtkMRMLPlotChartNode | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    statement: str = ""
    suggested: bool = False
    report: str = ""
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    kind: str = "statistics"
