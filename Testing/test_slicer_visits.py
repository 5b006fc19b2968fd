"""Two visits of one patient: differences, their intervals, lesions that are the same, new or gone. Real MRML."""

from __future__ import annotations

import numpy as np
import pytest

import slicer_views  # isort: skip  # puts slicer in place

import slicer
from DEMISTSlicerLib.Logic import DEMISTSlicerLogic
from DEMISTSlicerLib.Nodes import Change, Tables
from DEMISTSlicerLib.Nodes.Volumes import createPsrVolume
from DEMISTSlicerLib.RunError import RunError
from DEMISTSlicerLib.Views import Jump

from DEMISTCore.statistics.table import COLUMNS


def row(region, mean, half=None, lesion=None, volume=1.0):
    ends = (None, None) if half is None else (mean - half, mean + half)
    name = f"Lesion {lesion}" if lesion else region
    return {
        "region": region,
        "lesion": lesion,
        "name": name,
        "volume_ml": volume,
        "mean": mean,
        "mean_ci90_low": ends[0],
        "mean_ci90_high": ends[1],
    }


def test_the_interval_of_a_difference_holds_the_truth_nine_times_in_ten():
    """Drawn, not calculated: errors of both visits normal, one of them skewed by a longer upper side."""
    rng = np.random.default_rng(1)
    before, after = rng.normal(0.10, 0.004, 4000), rng.normal(0.12, 0.006, 4000)
    quantile = 1.6448536
    held = 0
    for b, a in zip(before, after):
        low, high = Change.interval(row("nawm", b, quantile * 0.004), row("nawm", a, quantile * 0.006))
        held += low <= 0.02 <= high
    assert held / 4000 == pytest.approx(0.9, abs=0.015)


def test_a_longer_side_stays_longer():
    told = {"mean": 0.10, "mean_ci90_low": 0.09, "mean_ci90_high": 0.13}
    low, high = Change.interval(row("nawm", 0.10, 0.01), told)
    assert high - 0.0 == pytest.approx(np.hypot(0.03, 0.01))
    assert 0.0 - low == pytest.approx(np.hypot(0.01, 0.01))
    assert Change.interval(row("nawm", 0.1), told) is None


@pytest.mark.parametrize("odd", [10**400, float("nan"), float("inf"), True, "0.1", None])
def test_a_number_that_is_none_is_a_missing_value(odd):
    """JSON and scenes of other programs may hold whole numbers of hundreds of digits, which no float holds."""
    told = row("nawm", 0.12, 0.01)
    (found,) = Change.changes([{**told, "mean": odd, "volume_ml": odd}], [told])
    assert found["difference"] is None
    assert found["volume_change_ml"] is None
    assert found["beyond_error"] is None


def test_lesions_are_the_same_new_or_gone():
    before = {1: (0, 0, 0), 2: (30, 0, 0), 3: (60, 0, 0)}
    after = {1: (31, 1, 0), 2: (0, 2, 0), 3: (0, 40, 0), 4: (3, 3, 0)}
    assert sorted(Change.matched(before, after)) == [(1, 2), (2, 1)]
    assert Change.matched({}, after) == []


def visit(name, rows, points, t1=None, model="a"):
    """A map of that name with its statistics table, as the logic makes them."""
    t1 = t1 or slicer_views.volume(np.ones((8, 8, 8), np.float32), name=f"{name} T1w")
    told = {"bundle": {"name": "demist", "hash": model}, "settings": {"mode": "mean"}}
    psr = createPsrVolume(t1, np.full((8, 8, 8), 0.1, np.float32), None, told)
    return psr, Tables.statisticsTable(rows, COLUMNS, f"{name} statistics", points, psr)


def test_two_tables_give_one_of_differences():
    slicer_views.fresh()
    logic = DEMISTSlicerLogic()
    regions = [row("lesion", 0.08, 0.002, volume=3.0), row("nawm", 0.12, 0.004), row("csf", 0.001)]
    psr, first = visit(
        "First", [*regions, row("lesion", 0.08, 0.01, 1), row("lesion", 0.07, 0.01, 2)], {1: (0, 0, 0), 2: (9, 9, 9)}
    )
    later = [row("lesion", 0.09, 0.002, volume=2.5), row("nawm", 0.121, 0.004), row("grey_matter", 0.06)]
    follow, second = visit(
        "Second",
        [*later, row("lesion", 0.095, 0.01, 1), row("lesion", 0.06, 0.01, 2)],
        {1: (20, 0, 0), 2: (99, 99, 99)},
    )
    made = logic.compareVisits(first, second)
    assert [told["name"] for told in made.rows] == ["lesion", "nawm"]  # what both visits have
    lesion, nawm = made.rows
    assert lesion["difference"] == pytest.approx(0.01)
    assert lesion["percent"] == pytest.approx(12.5)
    assert lesion["volume_change_ml"] == pytest.approx(-0.5)
    assert (lesion["beyond_error"], nawm["beyond_error"]) == ("yes", "no")
    assert any("Single lesions were not compared" in note for note in made.notes)
    # The later visit lay 20 mm to the left; registered, its first lesion is the earlier one's.
    follow.SetAndObserveTransformNodeID(slicer_views.transform(slicer_views.rigid((0, 0, 0), (-20, 0, 0))).GetID())
    again = logic.compareVisits(first, second, registered=True, table=made.table)
    assert again.table is made.table
    singles = {told["name"]: told for told in again.rows if told["lesion"] or told["lesion_before"]}
    assert list(singles) == ["Lesion 1", "Lesion 2, new", "Lesion 2 of the earlier visit, gone"]
    assert singles["Lesion 1"]["difference"] == pytest.approx(0.015)
    assert singles["Lesion 2, new"]["difference"] is None
    assert singles["Lesion 2 of the earlier visit, gone"]["lesion"] == 0
    table = again.table.GetTable()
    assert again.table.GetAttribute("DEMIST.Table") == "Change"
    assert table.GetValueByName(0, "difference_ci90_low").ToDouble() == pytest.approx(0.01 - np.hypot(0.002, 0.002))
    index = [told["name"] for told in again.rows].index("Lesion 1")
    assert Jump.jumpToRow(again.table, index) == pytest.approx((0, 0, 0))  # a click shows it where it is seen
    assert not again.notes


def test_what_cannot_be_compared_is_told():
    slicer_views.fresh()
    logic = DEMISTSlicerLogic()
    _psr, first = visit("First", [row("nawm", 0.12, 0.004)], None)
    _psr, other = visit("Second", [row("csf", 0.0)], None, model="b")
    plain = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Doses")
    for before, after, words in (
        (None, first, "earlier visit"),
        (first, plain, "later visit"),
        (first, first, "same table"),
        (first, other, "no region in common"),
    ):
        with pytest.raises(RunError, match=words):
            logic.compareVisits(before, after)
    _psr, third = visit("Third", [row("nawm", 0.11)], None, model="b")
    notes = logic.compareVisits(first, third).notes
    assert any("not made by the same model" in note for note in notes)
    assert any("no intervals" in note for note in notes)
