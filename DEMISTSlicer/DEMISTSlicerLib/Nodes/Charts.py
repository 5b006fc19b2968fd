"""ROC curves and box plots as plot chart nodes, for Slicer's own plot view."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import slicer
import vtk

from ..Errors import InputError
from ..I18n import _
from ..Numbers import finite
from ..RegionColors import REGION_COLORS
from . import Placement
from .Tables import rowsOf

if TYPE_CHECKING:
    from slicer import vtkMRMLPlotChartNode, vtkMRMLPlotSeriesNode, vtkMRMLScalarVolumeNode, vtkMRMLTableNode

_AGAINST = {"nawm": _("All NAWM"), "nawm_proximal": _("Proximal NAWM"), "nawm_distal": _("Distal NAWM")}
_POINTS = 101
#: What a chart is made of; its nodes are found by it and replaced when the chart is made again.
_PART = "DEMIST.Chart"
_HALF = 0.3
#: What a row must have to be drawn.
_BOX = ("p5", "p25", "median", "p75", "p95", "mean")
#: Strokes that fill a box: no gap at any size of window that a person uses.
_STROKES = 120
#: How a statistics table refers to its ROC curves and its box plots.
ROLES = ("DEMIST.ROC", "DEMIST.BoxPlot")


def rocChart(
    data: Mapping[str, Any],
    level: str = "voxel",
    name: str | None = None,
    node: vtkMRMLPlotChartNode | None = None,
    besides: vtkMRMLScalarVolumeNode | None = None,
) -> vtkMRMLPlotChartNode:
    """ROC curves of lesions against all, proximal and distal NAWM as a vtkMRMLPlotChartNode.

    Args:
        data: what ``statistics.json`` holds (``DEMISTCore.statistics.Analysis.summary()``), or its part ``"roc"``.
        level: ``"voxel"`` (intervals by lesion and block) or ``"lesion"`` (means of lesions and of patches).
        name: of a new chart.
        node: chart to fill; None makes one.
        besides: node in whose neighbourhood chart and table go in the subject hierarchy.

    Raises:
        InputError: there is no curve of that level; the sentence says why.
    """
    roc = data.get("roc", data)
    curves = {key: found[level] for key, found in roc.get("against", {}).items() if found.get(level)}
    if not curves:
        why = roc.get("declined") or next((n for f in roc.get("against", {}).values() for n in f.get("notes", ())), "")
        raise InputError(_("There is no ROC curve. {why}").format(why=why).strip())
    suggested = bool((data.get("lesions") or {}).get("suggested"))
    title = {"voxel": _("Lesion against NAWM, voxels"), "lesion": _("Lesion against NAWM, lesions and patches")}[level]
    if suggested:
        title = _("{title} (suggested lesions)").format(title=title)
    chart = _chart(node, name or title, besides)
    columns: dict[str, Sequence[float]] = {}
    for key, curve in curves.items():
        points = curve["curve"]
        columns[f"{key} 1 - specificity"] = _stretched(points["false_positive_rate"])
        columns[f"{key} sensitivity"] = _stretched(points["true_positive_rate"])
        columns[f"{key} threshold"] = _stretched(points["threshold"])
    columns["chance"] = [i / (_POINTS - 1) for i in range(_POINTS)]
    # A curve that tells nothing apart (a constant map) has no best threshold.
    best = [c["youden"] for c in curves.values() if all(finite(v) for v in c["youden"].values())]
    if best:
        columns["threshold x"] = [1 - point["specificity"] for point in best]
        columns["threshold y"] = [point["sensitivity"] for point in best]
    table = _table(chart, columns, besides)
    styles = _lineStyles()
    for index, (key, curve) in enumerate(curves.items()):
        label = f"{_AGAINST.get(key, key)}: {curve['auc']:.3f}{_interval(curve)}"
        color = REGION_COLORS.get(key, "#000000")
        series = _series(chart, table, label, f"{key} 1 - specificity", f"{key} sensitivity", color)
        series.SetLineStyle(styles[index % len(styles)])
    if best:
        values = ", ".join(f"{point['threshold']:.3f}" for point in best)
        label = _("best thresholds: PSR {values}").format(values=values)
        dots = _series(chart, table, label, "threshold x", "threshold y", "#404040")
        _asPoints(dots, dots.MarkerStyleCircle, 9)
    chance = _series(chart, table, _("chance"), "chance", "chance", "#b0b0b0")
    chance.SetLineWidth(1)
    chart.SetXAxisTitle(_("1 - specificity (NAWM called lesion)"))
    chart.SetYAxisTitle(_("sensitivity (lesion called lesion)"))
    _finish(chart, title + _("; AUC [95 % CI]"), (0.0, 1.0), (0.0, 1.0))
    return chart


def boxPlotChart(
    data: Any,
    name: str | None = None,
    node: vtkMRMLPlotChartNode | None = None,
    besides: vtkMRMLScalarVolumeNode | None = None,
) -> vtkMRMLPlotChartNode:
    """Box plots of PSR by region as a vtkMRMLPlotChartNode.

    Boxes are quartiles, their white line the median, whiskers the 5th and 95th percentile, diamonds means; dots are
    single lesions. Where the table has intervals of the means, they are error bars. Slicer has no box plots, no fills
    and no error bars of its own, so each box is one line that goes back and forth until the box is full, drawn without
    lifting the pen, and all medians and all bars are one line each, broken by missing values.

    Args:
        data: rows of the statistics table, or its vtkMRMLTableNode.
        name, node, besides: as for :func:`rocChart`.

    Raises:
        InputError: no region has values.
    """
    rows = rowsOf(data) if hasattr(data, "GetTable") else list(data)
    whole = [row for row in rows if not row.get("lesion") and all(finite(row.get(key)) for key in _BOX)]
    single = [row for row in rows if row.get("lesion") and finite(row.get("mean"))]
    if not whole:
        raise InputError(_("No region has PSR values to be drawn; compute the statistics first."))
    chart = _chart(node, name or _("PSR by region"), besides)
    columns: dict[str, Sequence[float]] = {}
    for place, row in enumerate(whole, start=1):
        across, up = _box(place, row)
        columns[f"{row['region']} x"], columns[f"{row['region']} y"] = across, up
    columns |= _medians(whole)
    columns["place"] = list(range(1, len(whole) + 1))
    columns["mean"] = [row["mean"] for row in whole]
    lesions = next((i for i, row in enumerate(whole, start=1) if row["region"] == "lesion"), None)
    if lesions is not None and len(single) > 1:
        # The shift keeps dots apart that would cover each other; it is fixed, not random.
        columns["dots x"] = [lesions + 0.5 * _HALF * math.sin(7.0 * i) for i in range(len(single))]
        columns["dots y"] = [row["mean"] for row in single]
        columns |= _bars("dots interval", columns["dots x"], single, 0.0)
    columns |= _bars("interval", columns["place"], whole, _HALF / 3)
    table = _table(chart, columns, besides)
    for place, row in enumerate(whole, start=1):
        label = f"{place}  {row['name']}{_millilitres(row.get('volume_ml'))}"
        box = _series(
            chart, table, label, f"{row['region']} x", f"{row['region']} y", REGION_COLORS.get(row["region"], "#7f7f7f")
        )
        box.SetLineWidth(2)
    middle = _series(chart, table, _("median"), "median x", "median y", "#ffffff")
    middle.SetLineWidth(3)
    for name, label, width in (
        ("interval", _("90 % interval of the true mean"), 2),
        ("dots interval", _("90 % intervals of lesions"), 1),
    ):
        if f"{name} x" in columns:
            bars = _series(chart, table, label, f"{name} x", f"{name} y", "#000000" if width > 1 else "#808080")
            bars.SetLineWidth(width)
    means = _series(chart, table, _("mean"), "place", "mean", "#000000")
    _asPoints(means, means.MarkerStyleDiamond, 9)
    if "dots x" in columns:
        dots = _series(chart, table, _("single lesions"), "dots x", "dots y", "#404040")
        _asPoints(dots, dots.MarkerStyleCircle, 5)
    chart.SetXAxisTitle(_("region (number as in the legend)"))
    chart.SetYAxisTitle(_("PSR (fraction)"))
    values = [v for key, column in columns.items() if key.endswith((" y", "mean")) for v in column if finite(v)]
    low, high = min(values), max(values)
    pad = 0.05 * max(high - low, 1e-3)
    title = _("PSR by region: quartiles, 5th to 95th percentile")
    # Slicer puts the legend into the upper right corner: room for it beside the boxes.
    _finish(chart, title, (0.4, 1.9 * len(whole) + 0.6), (low - pad, high + pad))
    return chart


def showChart(node: vtkMRMLPlotChartNode, applicationLogic: Any = None) -> None:
    """Show a chart in the layout's plot view, where there is one."""
    logic = applicationLogic or slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActivePlotChartID(node.GetID())
    logic.PropagatePlotChartSelection()


def chartsOf(tableNode: vtkMRMLTableNode) -> tuple[vtkMRMLPlotChartNode | None, vtkMRMLPlotChartNode | None]:
    """The charts that belong to a statistics table, ROC curves and box plots; None for what there is not."""
    roc, boxes = (tableNode.GetNodeReference(role) for role in ROLES)
    return roc, boxes


def linkCharts(
    tableNode: vtkMRMLTableNode, roc: vtkMRMLPlotChartNode | None = None, boxPlot: vtkMRMLPlotChartNode | None = None
) -> None:
    """Let the statistics table refer to its charts, so that they are found again in a scene that was saved."""
    for role, chart in zip(ROLES, (roc, boxPlot)):
        tableNode.SetNodeReferenceID(role, chart.GetID() if chart is not None else None)


def removeChart(chart: vtkMRMLPlotChartNode) -> None:
    """Take a chart out of the scene, with the series and the table it was made of."""
    scene = chart.GetScene()
    if scene is not None:
        _clear(chart)
        scene.RemoveNode(chart)


# --- parts --------------------------------------------------------------------------------------------------------


def _box(place: int, row: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """One box with whiskers as one line: lower cap, whisker, the box filled from below, upper whisker, cap."""
    left, mid, right, cap = place - _HALF, place, place + _HALF, _HALF / 2
    p5, q1, q3, p95 = (float(row[key]) for key in ("p5", "p25", "p75", "p95"))
    points = [(mid - cap, p5), (mid + cap, p5), (mid, p5), (mid, q1)]
    for i in range(_STROKES + 1):
        height = q1 + (q3 - q1) * i / _STROKES
        points += [(left, height), (right, height)] if i % 2 == 0 else [(right, height), (left, height)]
    points += [(left, q1), (left, q3), (mid, q3), (mid, p95), (mid - cap, p95), (mid + cap, p95)]
    return [float(x) for x, _y in points], [float(y) for _x, y in points]


def _medians(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Columns of the median lines; a missing value behind each lifts the pen."""
    across: list[float] = []
    up: list[float] = []
    for place, row in enumerate(rows, start=1):
        across += [place - _HALF, place + _HALF, place + _HALF]
        up += [float(row["median"]), float(row["median"]), math.nan]
    return {"median x": across, "median y": up}


def _bars(name: str, places: Sequence[float], rows: Sequence[Mapping[str, Any]], cap: float) -> dict[str, list[float]]:
    """Columns of error bars at these places, for rows that have an interval; none without.

    Each is a lower cap, a stem and an upper cap; a missing value behind it lifts the pen.
    """
    across: list[float] = []
    up: list[float] = []
    for place, row in zip(places, rows):
        low, high = row.get("mean_ci90_low"), row.get("mean_ci90_high")
        if not (finite(low) and finite(high)):
            continue
        points = [(place - cap, low), (place + cap, low), (place, low), (place, high), (place - cap, high)]
        for x, y in [*points, (place + cap, high), (place + cap, math.nan)]:
            across.append(float(x))
            up.append(float(y))
    return {f"{name} x": across, f"{name} y": up} if up else {}


def _stretched(values: Sequence[float | None]) -> list[float]:
    """As many points for every curve, so that one table holds them all: the last is repeated, which draws nothing.

    What is no number that a float can hold is a missing value.
    """
    values = [float(v) if finite(v) else math.nan for v in values][:_POINTS]
    return values + values[-1:] * (_POINTS - len(values))


def _interval(curve: Mapping[str, Any]) -> str:
    """The interval to believe, by clusters where there is one; empty where none is known."""
    ci = curve.get("ci_clustered") or curve.get("ci_delong")
    return f" [{ci[0]:.3f}, {ci[1]:.3f}]" if ci and all(finite(v) for v in ci) else ""


def _millilitres(volume: Any) -> str:
    """A volume behind a name, "(0.59 mL)" or "(1045 mL)"; empty where none is known."""
    return (
        f" ({volume:.3g} mL)" if finite(volume) and volume < 999.5 else f" ({volume:.0f} mL)" if finite(volume) else ""
    )


def _chart(
    node: vtkMRMLPlotChartNode | None, name: str, besides: vtkMRMLScalarVolumeNode | None
) -> vtkMRMLPlotChartNode:
    scene = Placement.sceneOf(node, besides)
    if node is None:
        node = slicer.vtkMRMLPlotChartNode()
        node.SetName(scene.GenerateUniqueName(name))
        scene.AddNode(node)
    else:
        _clear(node)
    return node


def _clear(chart: vtkMRMLPlotChartNode) -> None:
    """Remove what an earlier chart in the same node was made of."""
    scene = chart.GetScene()
    parts = []
    for kind in ("vtkMRMLPlotSeriesNode", "vtkMRMLTableNode"):
        for index in range(scene.GetNumberOfNodesByClass(kind)):
            part = scene.GetNthNodeByClass(index, kind)
            if part.GetNodeReference(_PART) is chart:
                parts.append(part)
    chart.RemoveAllPlotSeriesNodeIDs()
    for part in parts:
        scene.RemoveNode(part)


def _table(
    chart: vtkMRMLPlotChartNode, columns: Mapping[str, Sequence[float]], besides: vtkMRMLScalarVolumeNode | None
) -> vtkMRMLTableNode:
    """The numbers behind a chart; shorter columns repeat their last value, which draws the same point again."""
    scene = chart.GetScene()
    node = slicer.vtkMRMLTableNode()
    node.SetName(scene.GenerateUniqueName(_("{name} data").format(name=chart.GetName())))
    scene.AddNode(node)
    table = vtk.vtkTable()
    length = max(len(column) for column in columns.values())
    for name, values in columns.items():
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        for value in [*values, *values[-1:] * (length - len(values))]:
            column.InsertNextValue(float(value))
        table.AddColumn(column)
    node.SetAndObserveTable(table)
    node.SetNodeReferenceID(_PART, chart.GetID())
    node.SetAttribute("DEMIST.Table", "Chart")
    if besides is not None:
        Placement.placeBeside(node, besides)
        Placement.placeBeside(chart, besides)
    return node


def _series(
    chart: vtkMRMLPlotChartNode, table: vtkMRMLTableNode, name: str, x: str, y: str, color: str
) -> vtkMRMLPlotSeriesNode:
    node = slicer.vtkMRMLPlotSeriesNode()
    node.SetName(name)
    chart.GetScene().AddNode(node)
    node.SetPlotType(node.PlotTypeScatter)
    node.SetAndObserveTableNodeID(table.GetID())
    node.SetXColumnName(x)
    node.SetYColumnName(y)
    node.SetLineStyle(node.LineStyleSolid)
    node.SetMarkerStyle(node.MarkerStyleNone)
    node.SetLineWidth(2.5)
    node.SetColor(*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)))
    node.SetNodeReferenceID(_PART, chart.GetID())
    chart.AddAndObservePlotSeriesNodeID(node.GetID())
    return node


def _asPoints(series: vtkMRMLPlotSeriesNode, marker: int, size: float) -> None:
    series.SetLineStyle(series.LineStyleNone)
    series.SetMarkerStyle(marker)
    series.SetMarkerSize(size)


def _finish(chart: vtkMRMLPlotChartNode, title: str, across: tuple[float, float], up: tuple[float, float]) -> None:
    chart.SetTitle(title)
    chart.SetTitleVisibility(True)
    chart.SetLegendVisibility(True)
    chart.SetGridVisibility(True)
    chart.SetXAxisRangeAuto(False)
    chart.SetYAxisRangeAuto(False)
    chart.SetXAxisRange(*across)
    chart.SetYAxisRange(*up)
    chart.Modified()


def _lineStyles() -> tuple[int, ...]:
    """Line styles in the order of curves: told apart without colours too."""
    series = slicer.vtkMRMLPlotSeriesNode
    return series.LineStyleSolid, series.LineStyleDash, series.LineStyleDashDot
