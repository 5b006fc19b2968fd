"""The panel without a mouse: Tab reaches all of it from the top down and is never caught."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
from PySide6.QtCore import QPoint, Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402
from PySide6.QtWidgets import QApplication, QWidget  # noqa: E402
from test_slicer_panel import panel, scanned  # noqa: E402, F401  (fixtures)

#: More than there are widgets in the panel.
ENOUGH = 150
#: Longest wait for a run that is cancelled, seconds.
LONG = 300


def focused() -> QWidget:
    return QApplication.focusWidget()


def press(key, times: int = 1) -> None:
    for _ in range(times):
        QTest.keyClick(focused(), key)
        slicer_app.process_events()


def tab_to(widget) -> None:
    """Tab until a widget, or a part of it, has the keys."""
    for _ in range(ENOUGH):
        press(Qt.Key.Key_Tab)
        if widget is focused() or widget.isAncestorOf(focused()):
            return
    raise AssertionError(f"Tab never comes to {widget.objectName}")


def open_all(panel) -> None:  # noqa: F811
    for name in dir(panel.ui):
        if name.endswith("CollapsibleButton"):
            getattr(panel.ui, name).collapsed = False
    slicer_app.process_events()


def with_a_table(panel) -> None:  # noqa: F811
    from DEMISTSlicerLib.Nodes import Tables
    from DEMISTSlicerLib.Nodes.Studies import Study

    rows = [
        {"region": "lesion", "lesion": number or None, "name": f"Lesion {number}", "volume_ml": 1.5, "mean": 0.07}
        for number in range(4)
    ]
    panel._parameterNode.statisticsTable = Tables.statisticsTable(rows, list(rows[0]))
    panel.batch._show([Study("one", problem="There is no FLAIR."), Study("two", problem="There is no T1w.")])


def walked(panel) -> list[QWidget]:  # noqa: F811
    """The widgets that Tab comes to, from the first one until it comes again."""
    panel.ui.t1Selector._box.setFocus()
    seen = [focused()]
    while len(seen) < ENOUGH:
        press(Qt.Key.Key_Tab)
        if focused() in seen:
            break
        seen.append(focused())
    return seen


def name_of(widget: QWidget) -> str:
    while not QWidget.objectName(widget) or QWidget.objectName(widget).startswith("qt_"):
        widget = widget.parentWidget()
    return QWidget.objectName(widget)


def test_tab_comes_to_everything_from_the_top_down_and_is_never_caught(scanned):  # noqa: F811
    panel, _nodes = scanned  # noqa: F811
    open_all(panel)
    with_a_table(panel)
    slicer_app.process_events()
    root = panel.ui.applyButton.window()
    seen = walked(panel)
    assert focused() is seen[0], f"Tab is caught at {name_of(focused())}"
    wanted = {
        widget
        for widget in root.findChildren(QWidget)
        if widget.isVisible()
        and widget.isEnabled()
        and QWidget.focusPolicy(widget).value & Qt.FocusPolicy.TabFocus.value
        and widget.focusProxy() is None
    }
    assert not {name_of(widget) for widget in wanted - set(seen)}
    places = [(widget.mapTo(root, QPoint(0, 0)), name_of(widget)) for widget in seen]
    first = places.index(min(places, key=lambda told: told[0].y()))  # a ring: begin where the panel does
    places = places[first:] + places[:first]
    for (before, one), (after, other) in pairwise(places):
        # Lower, or farther right in the same row.
        assert after.y() > before.y() - 12, f"from {one} the keys go up to {other}"
        assert after.y() > before.y() + 12 or after.x() > before.x(), f"from {one} the keys go back to {other}"


def choose(selector, node) -> None:
    tab_to(selector)
    press(Qt.Key.Key_Home)
    press(Qt.Key.Key_Down, selector._box.findText(node.GetName()))
    assert selector.currentNode() is node


def test_a_run_is_set_up_begun_and_cancelled_by_keys_alone(scanned):  # noqa: F811
    panel, nodes = scanned  # noqa: F811
    ui = panel.ui
    choose(ui.t1Selector, nodes["t1"])
    choose(ui.flairSelector, nodes["flair"])
    choose(ui.brainMaskSelector, nodes["mask"])
    tab_to(ui.stepsSpinBox)
    QTest.keyClick(focused(), Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClicks(focused(), "7")
    tab_to(ui.applyButton)
    press(Qt.Key.Key_Space)
    assert panel.logic.isRunning
    assert panel._parameterNode.steps == 7
    tab_to(ui.cancelButton)
    press(Qt.Key.Key_Space)
    assert slicer_app.wait_until(lambda: not panel.logic.isRunning, LONG)
    assert ui.stageLabel.text == "Cancelled"


def test_a_map_is_looked_at_and_its_table_walked_by_keys_alone(scanned, monkeypatch):  # noqa: F811
    from DEMISTSlicerLib.Nodes.Volumes import createPsrVolume

    panel, nodes = scanned  # noqa: F811
    ui, parameters = panel.ui, panel._parameterNode
    parameters.t1 = nodes["t1"]
    shape = slicer.util.arrayFromVolume(nodes["t1"]).T.shape
    parameters.psr = createPsrVolume(nodes["t1"], np.full(shape, 0.1, np.float32), None, {"bundle": {"name": "x"}})
    with_a_table(panel)
    slicer_app.process_events()
    tab_to(ui.overlayButton)
    before = panel.overlay.isShown
    press(Qt.Key.Key_Space)
    assert panel.overlay.isShown is not before
    choose(ui.lesionsSelector, nodes["lesions"])
    jumped = []
    monkeypatch.setattr("DEMISTSlicerLib.Views.Jump.jumpToRow", lambda node, row: jumped.append(row))
    tab_to(ui.statisticsTable)
    press(Qt.Key.Key_Home)
    press(Qt.Key.Key_Down, 2)
    assert jumped[-2:] == [1, 2]
