"""A chart node drawn by VTK, following qMRMLPlotView of Slicer (a Qt widget, which no package offers)."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy


def series_of(chart: object) -> list[object]:
    return [chart.GetNthPlotSeriesNode(i) for i in range(chart.GetNumberOfPlotSeriesNodes())]


def column(series: object, name: str) -> np.ndarray:
    return vtk_to_numpy(series.GetTableNode().GetTable().GetColumnByName(name))


def draw(chart: object, size: tuple[int, int] = (800, 600)) -> np.ndarray:
    """(rows, columns, 3) uint8: series, axes, legend and titles as the node wants them."""
    view = vtk.vtkContextView()
    view.GetRenderWindow().SetOffScreenRendering(1)
    view.GetRenderWindow().SetMultiSamples(4)
    view.GetRenderWindow().SetSize(*size)
    view.GetRenderer().SetBackground(1, 1, 1)
    xy = vtk.vtkChartXY()
    view.GetScene().AddItem(xy)
    lines = [
        vtk.vtkPen.NO_PEN,
        vtk.vtkPen.SOLID_LINE,
        vtk.vtkPen.DASH_LINE,
        vtk.vtkPen.DOT_LINE,
        vtk.vtkPen.DASH_DOT_LINE,
        vtk.vtkPen.DASH_DOT_DOT_LINE,
    ]
    markers = [
        vtk.vtkPlotPoints.NONE,
        vtk.vtkPlotPoints.CROSS,
        vtk.vtkPlotPoints.PLUS,
        vtk.vtkPlotPoints.SQUARE,
        vtk.vtkPlotPoints.CIRCLE,
        vtk.vtkPlotPoints.DIAMOND,
    ]
    for series in series_of(chart):
        assert series.GetPlotType() == slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter
        plot = vtk.vtkPlotLine()
        plot.SetWidth(series.GetLineWidth())
        plot.SetColorF(*series.GetColor())
        plot.GetPen().SetLineType(lines[series.GetLineStyle()])
        plot.SetMarkerSize(series.GetMarkerSize())
        plot.SetMarkerStyle(markers[series.GetMarkerStyle()])
        plot.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
        plot.SetLabel(series.GetName())
        xy.AddPlot(plot)
    xy.SetTitle(chart.GetTitle() if chart.GetTitleVisibility() else "")
    xy.GetTitleProperties().SetFontSize(chart.GetTitleFontSize())
    xy.SetShowLegend(bool(chart.GetLegendVisibility()))
    xy.GetLegend().SetLabelSize(chart.GetLegendFontSize())
    for index, title, auto, limits in (
        (vtk.vtkAxis.BOTTOM, chart.GetXAxisTitle(), chart.GetXAxisRangeAuto(), chart.GetXAxisRange()),
        (vtk.vtkAxis.LEFT, chart.GetYAxisTitle(), chart.GetYAxisRangeAuto(), chart.GetYAxisRange()),
    ):
        axis = xy.GetAxis(index)
        axis.SetTitle(title)
        axis.GetTitleProperties().SetFontSize(chart.GetAxisTitleFontSize())
        axis.GetLabelProperties().SetFontSize(chart.GetAxisLabelFontSize())
        if not auto:
            axis.SetBehavior(vtk.vtkAxis.FIXED)
            axis.SetRange(*limits)
    view.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(view.GetRenderWindow())
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()
