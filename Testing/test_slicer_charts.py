"""ROC and box-plot charts: the numbers in them are the core's, and they look like what they say. Real MRML."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import slicer_views  # isort: skip  # puts slicer in place

import slicer
from DEMISTSlicerLib.Nodes import Charts, Tables
from slicer_plots import column, draw, series_of

from DEMISTCore.colors import REGION_COLORS
from DEMISTCore.errors import InputError
from DEMISTCore.metrics import json_ready
from DEMISTCore.regions import Lesions, Regions, RegionSettings
from DEMISTCore.statistics import contrasts, region_table, roc
from DEMISTCore.statistics.report import _contrast, _roc
from DEMISTCore.statistics.table import COLUMNS
from DEMISTCore.volume import Volume


@pytest.fixture(scope="module")
def brain():
    """A small brain with three lesions: rows of the table and the ROC part of statistics.json, by the core."""
    rng = np.random.default_rng(0)
    shape = (30, 30, 20)
    numbers = np.zeros(shape, np.int32)
    for number, at in enumerate(((5, 5, 5), (12, 20, 8), (20, 8, 14)), start=1):
        numbers[at[0] : at[0] + 3, at[1] : at[1] + 3, at[2] : at[2] + 3] = number
    nawm = numbers == 0
    near = nawm.copy()
    near[:, :, 10:] = False
    masks = {"lesion": numbers > 0, "nawm": nawm, "nawm_proximal": near, "nawm_distal": nawm & ~near}
    psr = rng.normal(0.12, 0.015, shape)
    psr[numbers > 0] = rng.normal(0.09, 0.02, int((numbers > 0).sum()))
    volume = Volume(psr.astype(np.float32), np.eye(4))
    regions = Regions(
        {key: Volume(mask.astype(np.uint8), np.eye(4)) for key, mask in masks.items()},
        Lesions(Volume(numbers, np.eye(4)), black_holes=(2,)),
        None,
        RegionSettings(),
    )
    found = contrasts(volume, regions)
    told = {"declined": None, "against": {c.against: _contrast(c) for c in found}}
    return region_table(volume, regions), json.loads(json.dumps({"roc": told, "lesions": {"suggested": False}})), found


@pytest.fixture
def scene():
    return slicer_views.fresh()


@pytest.mark.parametrize("level", ["voxel", "lesion"])
def test_roc_curves_are_the_cores(scene, brain, level):
    _rows, summary, found = brain
    chart = Charts.rocChart(summary, level)
    series = {s.GetXColumnName(): s for s in series_of(chart)}
    for contrast in found:
        curve = getattr(contrast, level)
        line = series[f"{contrast.against} 1 - specificity"]
        x, y = column(line, line.GetXColumnName()), column(line, line.GetYColumnName())
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        assert np.trapezoid(y, x) == pytest.approx(curve.auc, abs=0.02)
        assert f"{curve.auc:.3f} [{curve.best_ci[0]:.3f}, {curve.best_ci[1]:.3f}]" in line.GetName()
        dots = series["threshold x"]
        assert np.isclose(column(dots, "threshold x"), 1 - curve.specificity).any()
        assert f"{curve.youden_threshold:.3f}" in dots.GetName()
        assert dots.GetLineStyle() == dots.LineStyleNone
    assert "chance" in series
    assert len({s.GetLineStyle() for s in series_of(chart) if "1 - spec" in s.GetXColumnName()}) == 3
    assert chart.GetYAxisTitle() == "sensitivity (lesion called lesion)"


def test_suggested_lesions_say_so_and_a_missing_curve_says_why(scene, brain):
    _rows, summary, _found = brain
    chart = Charts.rocChart({**summary, "lesions": {"suggested": True}})
    assert "(suggested lesions)" in chart.GetTitle()
    with pytest.raises(InputError, match=r"There is no ROC curve. The lesion mask is empty."):
        Charts.rocChart({"roc": {"declined": "The lesion mask is empty.", "against": {}}})
    notes = {"nawm": {"voxel": None, "lesion": None, "notes": ["There is one lesion only."]}}
    with pytest.raises(InputError, match="one lesion only"):
        Charts.rocChart({"roc": {"declined": None, "against": notes}}, "lesion")


def test_a_constant_map_has_the_chance_curve_and_no_threshold(scene):
    values = np.full(20, 0.1)
    curve = json.loads(json.dumps(json_ready(_roc(roc(values, values)))))
    assert curve["youden"]["threshold"] is None
    chart = Charts.rocChart({"roc": {"declined": None, "against": {"nawm": {"voxel": curve, "lesion": None}}}})
    assert [s.GetXColumnName() for s in series_of(chart)] == ["nawm 1 - specificity", "chance"]


@pytest.mark.parametrize("odd", [10**400, -(10**400), float("inf"), None])
def test_what_no_float_can_hold_is_a_missing_value(scene, brain, odd):
    """``statistics.json`` is read as it is; JSON's whole numbers may have hundreds of digits."""
    rows, summary, _found = brain
    curves = copy.deepcopy(summary["roc"])
    curve = curves["against"]["nawm"]["voxel"]
    curve["youden"]["threshold"] = odd
    curve["curve"]["threshold"][3] = odd
    curve["ci_delong"] = curve["ci_clustered"] = [odd, 0.9]
    chart = Charts.rocChart({"roc": curves})
    assert chart.GetNumberOfPlotSeriesNodes() >= 2
    assert " [" not in series_of(chart)[0].GetName()
    named = next(row["region"] for row in rows if not row["lesion"])
    changed = [{**row, "p5": odd, "volume_ml": odd} if row["region"] == named else row for row in rows]
    drawn = series_of(Charts.boxPlotChart(changed))
    assert f"{named} x" not in [s.GetXColumnName() for s in drawn]
    table = Tables.statisticsTable(changed, COLUMNS)
    assert next(row for row in Tables.rowsOf(table) if row["region"] == named)["p5"] is None


def test_boxes_are_the_tables_quantiles(scene, brain):
    rows, _summary, _found = brain
    table = Tables.statisticsTable(rows, COLUMNS)
    for data in (rows, table):
        chart = Charts.boxPlotChart(data)
        series = {s.GetXColumnName(): s for s in series_of(chart)}
        for place, row in enumerate((r for r in rows if r["lesion"] is None), start=1):
            box = series[f"{row['region']} x"]
            x, y = column(box, box.GetXColumnName()), column(box, box.GetYColumnName())
            for key in ("p5", "p25", "p75", "p95"):
                assert np.isclose(y, row[key], rtol=1e-5).any()
            inside = np.unique(y[(y >= row["p25"]) & (y <= row["p75"])])
            assert np.diff(inside).max() < 0.02 * (row["p75"] - row["p25"])  # full: no gap between strokes
            middles = column(series["median x"], "median y")[3 * (place - 1) : 3 * place - 1]
            assert middles == pytest.approx([row["median"]] * 2, rel=1e-5)
            assert (y.min(), y.max()) == pytest.approx((row["p5"], row["p95"]), rel=1e-5)
            assert abs(x.mean() - place) < 0.35
            assert box.GetName().startswith(f"{place}  {row['name']}")
        dots = series["dots x"]
        means = [row["mean"] for row in rows if row["lesion"]]
        np.testing.assert_allclose(sorted(set(column(dots, "dots y"))), sorted(means), rtol=1e-5)
    with pytest.raises(InputError, match="No region has PSR values"):
        Charts.boxPlotChart([])


def test_the_roc_axes_end_where_rates_do(scene, brain):
    chart = Charts.rocChart(brain[1])
    assert (chart.GetXAxisRange(), chart.GetYAxisRange()) == ((0, 1), (0, 1))


def with_intervals(rows):
    """The rows with an interval of -+ 10 % about each mean; the last region has none."""
    found = [{**r, "mean_ci90_low": 0.9 * r["mean"], "mean_ci90_high": 1.1 * r["mean"]} for r in rows]
    last = [row for row in found if row["lesion"] is None][-1]
    last.update(mean_ci90_low=float("nan"), mean_ci90_high=None)
    return found


def test_error_bars_are_the_tables_intervals(scene, brain):
    rows = with_intervals(brain[0])
    for data in (rows, Tables.statisticsTable(rows, COLUMNS)):
        series = {s.GetXColumnName(): s for s in series_of(Charts.boxPlotChart(data))}
        whole = [row for row in rows if row["lesion"] is None]
        single = [row for row in rows if row["lesion"] is not None]
        for name, expected in (("interval", whole[:-1]), ("dots interval", single)):
            bars = series[f"{name} x"]
            x, y = column(bars, f"{name} x"), column(bars, f"{name} y")
            # The pen is lifted between bars: each is at one place, from one end to the other.
            breaks = np.flatnonzero(np.isnan(y))
            pieces = [p for p in np.split(np.arange(len(y)), breaks + 1) if np.isfinite(y[p]).any()]
            assert len(pieces) == len(expected)
            for place, (piece, row) in enumerate(zip(pieces, expected), start=1):
                ends = np.nanmin(y[piece]), np.nanmax(y[piece])
                assert ends == pytest.approx((0.9 * row["mean"], 1.1 * row["mean"]), rel=1e-5)
                if name == "interval":
                    assert np.ptp(x[piece]) < 0.5
                    assert x[piece].mean() == pytest.approx(place, abs=0.15)
    assert "interval x" not in {s.GetXColumnName() for s in series_of(Charts.boxPlotChart(brain[0]))}


def test_error_bars_as_drawn(scene, brain):
    """Upright strokes with caps, one for each region that has an interval, nothing between them."""
    chart = Charts.boxPlotChart(with_intervals(brain[0]))
    for series in series_of(chart):
        if series.GetXColumnName() != "interval x":
            chart.RemovePlotSeriesNodeID(series.GetID())
    for hide in (chart.SetLegendVisibility, chart.SetGridVisibility, chart.SetTitleVisibility):
        hide(False)
    low, high = chart.GetYAxisRange()
    image = draw(chart, (900, 500)).astype(int).max(2)
    # Without the axes' own lines, which are the longest ones.
    dark = image < 128
    dark[dark.mean(1) > 0.5, :] = False
    dark[:, dark.mean(0) > 0.5] = False
    dark[:, :70] = False  # the numbers of the axis, and its title
    rows_of = [row for row in brain[0] if row["lesion"] is None][:-1]
    tall = dark.sum(0) > 0.5 * 0.2 * min(r["mean"] for r in rows_of) / (high - low) * 400
    strokes = np.flatnonzero(np.diff(np.append(0, tall.astype(int))) > 0)
    assert len(strokes) == len(rows_of) == 3
    between = dark[60:-60, strokes[0] + 60 : strokes[1] - 60]
    assert not between.any()


def test_a_chart_made_again_replaces_its_parts(scene, brain):
    rows, summary, _found = brain
    chart = Charts.rocChart(summary)
    other = Charts.boxPlotChart(rows)
    count = slicer.mrmlScene.GetNumberOfNodes()
    assert Charts.rocChart(summary, node=chart) is chart
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    Charts.removeChart(chart)
    assert {s.GetNodeReference("DEMIST.Chart") for s in nodes("vtkMRMLPlotSeriesNode")} == {other}
    Charts.removeChart(other)
    assert not nodes("vtkMRMLPlotSeriesNode")
    assert not nodes("vtkMRMLTableNode")


def nodes(kind):
    return [slicer.mrmlScene.GetNthNodeByClass(i, kind) for i in range(slicer.mrmlScene.GetNumberOfNodesByClass(kind))]


def test_charts_as_drawn(scene, brain):
    rows, summary, _found = brain
    for chart, keys in (
        (Charts.rocChart(summary), ("nawm_proximal", "nawm_distal")),
        (Charts.boxPlotChart(rows), ("lesion", "nawm_proximal", "nawm_distal")),
    ):
        image = draw(chart, (500, 400)).reshape(-1, 3).astype(int)
        assert (image.min(1) > 250).mean() > 0.5  # a white ground
        for key in keys:
            colour = [int(REGION_COLORS[key][i : i + 2], 16) for i in (1, 3, 5)]
            assert (np.abs(image - colour).max(1) < 12).sum() > 60, key


@pytest.mark.parametrize("kind", ["mrb", "mrml"])
def test_scene_saved_and_loaded(scene, brain, tmp_path, kind):
    rows, summary, _found = brain
    table = Tables.statisticsTable(rows, COLUMNS, name="Statistics")
    curves, box = Charts.rocChart(summary, name="ROC"), Charts.boxPlotChart(table, name="Boxes")
    Charts.linkCharts(table, curves, box)
    before = {
        c.GetName(): [
            (s.GetName(), s.GetColor(), s.GetLineStyle(), column(s, s.GetYColumnName()).tolist()) for s in series_of(c)
        ]
        for c in (curves, box)
    }
    limits = box.GetYAxisRange()
    slicer_views.saveAndLoad(tmp_path, kind)
    table = slicer.mrmlScene.GetFirstNodeByName("Statistics")
    for role, name in (("DEMIST.ROC", "ROC"), ("DEMIST.BoxPlot", "Boxes")):
        chart = table.GetNodeReference(role)
        assert chart.GetName() == name
        after = [
            (s.GetName(), s.GetColor(), s.GetLineStyle(), column(s, s.GetYColumnName()).tolist())
            for s in series_of(chart)
        ]
        assert len(after) == len(before[name])
        for now, then in zip(after, before[name]):
            assert now[0] == then[0]
            assert now[2] == then[2]
            np.testing.assert_allclose(now[1], then[1], atol=1e-3)
            np.testing.assert_allclose(now[3], then[3], rtol=1e-5)
    assert table.GetNodeReference("DEMIST.BoxPlot").GetYAxisRange() == pytest.approx(limits, rel=1e-4)


def test_shown_in_the_views_of_the_layout(scene, brain):
    rows, summary, _found = brain
    plot = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotViewNode")
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableViewNode")
    table, chart = Tables.statisticsTable(rows, COLUMNS), Charts.rocChart(summary)
    Tables.showTable(table)
    Charts.showChart(chart)
    assert plot.GetPlotChartNodeID() == chart.GetID()
    assert view.GetTableNodeID() == table.GetID()
