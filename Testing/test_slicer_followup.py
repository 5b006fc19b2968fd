"""The sections Follow-up and Lesions and regions of the panel: two visits by click, and the sketch of the distances."""

from __future__ import annotations

import numpy as np
import pytest
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
from DEMISTSlicerLib.Panel.Sketch import WIDTH, pieces  # noqa: E402
from PySide6.QtCore import Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402
from test_slicer_visits import row, visit  # noqa: E402

from DEMISTCore.colors import REGION_COLORS  # noqa: E402


@pytest.fixture
def panel():
    slicer_app.fresh_scene()
    parent = slicer_app.open_module().widgetRepresentation()
    widget = parent.self()
    widget._asked = True
    parent.resize(400, 2000)
    widget.ui.followUpCollapsibleButton.collapsed = False
    parent.show()
    parent.enter()
    slicer_app.process_events()
    yield widget
    slicer_app.close_module()
    slicer_app.fresh_scene()


def test_two_visits_by_click(panel, monkeypatch):
    ui, parameters = panel.ui, panel._parameterNode
    _psr, first = visit("First", [row("lesion", 0.08, 0.002), row("nawm", 0.12, 0.004)], None)
    psr, second = visit("Second", [row("lesion", 0.09, 0.002), row("nawm", 0.119, 0.004)], None)
    assert not ui.compareButton.enabled
    assert "two visits" in ui.compareButton.toolTip
    ui.earlierSelector.setCurrentNode(first)
    ui.laterSelector.setCurrentNode(first)
    assert not ui.compareButton.enabled  # one table is no change
    ui.laterSelector.setCurrentNode(second)
    assert ui.compareButton.enabled
    QTest.mouseClick(ui.compareButton, Qt.MouseButton.LeftButton)
    slicer_app.process_events(0.02)
    table = ui.statisticsTable
    heads = [table.horizontalHeaderItem(i).text() for i in range(table.columnCount)]
    assert heads[:6] == ["region", "diff.", "90 % interval", "before", "after", "diff. %"]
    assert [table.item(0, i).text() for i in range(5)] == ["lesion", "0.01", "0.007-0.013", "0.080", "0.090"]
    assert table.item(1, 2).text() == "-0.007 to 0.005"
    assert "1 of 2 differences" in ui.followUpLabel.text
    parameters.unit = "percent"
    assert table.item(1, 2).text() == "-0.7 to 0.5 %"
    # Measured again, the table of differences is not written over.
    parameters.psr = psr
    asked = []
    monkeypatch.setattr(panel.actions, "run", asked.append)
    monkeypatch.setattr(panel.logic, "computeStatistics", lambda *told, **more: asked.append(more["table"]))
    panel.actions.measure()
    asked[0]()
    assert asked[1] is None


def test_the_sketch_is_a_strip_with_the_distances_in_force(panel):
    told = pieces(2.0, 6.0, 10.0, 1.5)
    assert [name for name, *_ in told] == ["lesion", "gap", "proximal", "", "distal", "depth", "cortex"]
    assert [distance for *_, distance in told] == ["0", "2", "6", "10 mm", "", "1.5 mm", ""]
    assert sum(width for _name, width, *_ in told) == WIDTH
    assert told[2][2] == REGION_COLORS["nawm_proximal"]
    bare = pieces(0.0, 5.0, 5.0, 0.0)  # no gap, nothing between, no depth
    assert [name for name, *_ in bare] == ["lesion", "proximal", "distal", "cortex"]
    assert bare[1][4] == "5 mm"
    assert sum(width for _name, width, *_ in bare) == WIDTH

    def drawn() -> np.ndarray:
        image = panel.ui.sketchLabel.pixmap.toImage().convertToFormat(_format())
        data = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
        return data[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()

    before = drawn()
    scale, left = before.shape[1] / WIDTH, 0  # Qt gives it back at the resolution of the screen
    for _name, width, color, _ink, _distance in pieces(2.0, 6.0, 10.0, 2.0):
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(before[4, int(scale * left) + 4].astype(int) - wanted).max() < 4
        left += width
    panel._parameterNode.proximalMm = 7.5
    slicer_app.process_events(0.02)
    assert (drawn() != before).any()


def _format():
    from PySide6.QtGui import QImage

    return QImage.Format.Format_RGB888


def test_a_table_of_something_else_is_no_visit(panel):
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Doses")
    _psr, first = visit("First", [row("nawm", 0.12)], None)
    panel.ui.earlierSelector.setCurrentNode(first)
    panel.ui.laterSelector.setCurrentNode(other)
    assert not panel.ui.compareButton.enabled
