"""Pictures of the panel in every state, at the widths that people use, to be looked at.

    python -m slicer_app.states DEMO OUT

with ``Testing`` on PYTHONPATH. ``DEMO`` is a folder that ``python -m DEMISTCore.demo`` wrote: its maps and numbers are
what the panel shows after a run, so that no model runs here. A picture that is wider than it was asked for did not fit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import slicer_app

WIDTHS = (400, 640)


def states(panel: Any, demo: Path) -> Iterator[str]:
    """Bring the panel from state to state; yields the name of each."""
    import slicer
    from slicer_runs import load

    ui = panel.ui
    yield "01_empty"
    t1, flair = load(demo / "T1w.nii.gz", "Patient 7 T1w"), load(demo / "FLAIR.nii.gz", "Patient 7 FLAIR")
    parameters = panel._parameterNode
    parameters.t1, parameters.flair = flair, t1
    yield "02_swapped"
    parameters.t1, parameters.flair = t1, flair
    yield "03_ready"
    for section in (ui.regionsCollapsibleButton, ui.displayCollapsibleButton, ui.statisticsCollapsibleButton):
        section.collapsed = True
    ui.advancedCollapsibleButton.collapsed = False
    for name in ("model", "sampling", "mask", "outputs", "log", "generate", "environment", "batch"):
        section = getattr(ui, f"{name}CollapsibleButton", None)
        if section is not None:
            section.collapsed = False
    yield "04_advanced"
    ui.advancedCollapsibleButton.collapsed = ui.batchCollapsibleButton.collapsed = True
    for section in (ui.regionsCollapsibleButton, ui.displayCollapsibleButton, ui.statisticsCollapsibleButton):
        section.collapsed = False
    with slicer.util.NodeModify(parameters.parameterNode):
        panel.progress.show("denoising, sample 1 of 2, step 3 of 8", 0.42, 95.0)
    ui.applyButton.enabled, ui.cancelButton.enabled = False, True
    yield "05_running"
    synthesized(panel, t1, demo)
    yield "06_map"
    measured(panel, demo)
    yield "07_measured"
    parameters.unit = "percent"
    ui.statisticsTable.selectRow(4)
    yield "08_percent"
    panel._onFailed("input", "no box in a picture")
    yield "09_failed"


def synthesized(panel: Any, t1: Any, demo: Path) -> None:
    """What the panel does with a run's result: map, uncertainty and the means of a few regions."""
    from DEMISTSlicerLib.Nodes import Volumes
    from DEMISTSlicerLib.Run.Result import Result

    from DEMISTCore.volume import Volume

    provenance = json.loads((demo / "psr.json").read_text())
    psr = Volumes.createPsrVolume(t1, Volume.read(demo / "psr.nii.gz").array, None, provenance)
    spread = Volume.read(demo / "psr_uncertainty.nii.gz").array
    spread = Volumes.createPsrVolume(t1, spread, None, provenance, uncertainty=True, psrNode=psr)
    rows = {row["region"]: row for row in statistics(demo)["regions"] if not row["lesion"]}
    told = {
        key: {"mean": rows[key]["mean"], "low": rows[key]["mean_ci90_low"], "high": rows[key]["mean_ci90_high"]}
        for key in ("nawm", "grey_matter")
        if key in rows
    }
    notes = provenance.get("warnings", [])
    panel._onFinished(Result("synthesis", psr, spread, provenance=provenance, notes=notes, sanity=told, seconds=74.0))


def measured(panel: Any, demo: Path) -> None:
    """What the panel does with measured regions: table, charts, segments."""
    from DEMISTSlicerLib.Nodes import Charts, Tables
    from DEMISTSlicerLib.Run.StatisticsResult import StatisticsResult
    from DEMISTSlicerLib.Views import Jump

    from DEMISTCore.statistics.table import COLUMNS
    from DEMISTCore.volume import Volume

    summary, psr = statistics(demo), panel._parameterNode.psr
    numbers = Volume.read(demo / "statistics" / "lesions_dseg.nii.gz")
    table = Tables.statisticsTable(
        summary["regions"], COLUMNS, positions=Jump.lesionPositions(numbers.array, numbers.affine), volumeNode=psr
    )
    roc, boxes = Charts.rocChart(summary), Charts.boxPlotChart(table)
    Charts.linkCharts(table, roc, boxes)
    panel._onFinished(StatisticsResult(table, None, roc, boxes, summary["regions"], summary, seconds=21.0))


def statistics(demo: Path) -> dict[str, Any]:
    """The numbers that ``DEMISTCore.statistics`` wrote."""
    return json.loads((demo / "statistics" / "statistics.json").read_text())


def picture(parent: Any, width: int) -> np.ndarray:
    """The panel as wide as that, as high as it wants to be; (rows, columns, 3) uint8."""
    parent.resize(width, 10)
    slicer_app.process_events(0.05)
    parent.resize(width, max(parent.minimumSizeHint().height(), parent.layout().heightForWidth(width)))
    slicer_app.process_events(0.05)
    image = parent.grab().toImage().convertToFormat(_rgb())
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def widest(parent: Any) -> list[str]:
    """The widgets that want most room across, to find what does not fit."""
    from PySide6.QtWidgets import QWidget

    seen = [w for w in parent.findChildren(QWidget) if w.isVisible() and not w.findChildren(QWidget)]
    seen.sort(key=lambda w: -w.minimumSizeHint().width())
    return [f"{w.objectName} {w.minimumSizeHint().width()}" for w in seen[:6]]


def _rgb() -> Any:
    from PySide6.QtGui import QImage

    return QImage.Format.Format_RGB888


def walk(demo: Path, see: Callable[[str, Any], object]) -> None:
    """Open the panel, bring it to each state, and show it to ``see(name, parent)``."""
    slicer_app.install()
    slicer_app.fresh_scene()
    parent = slicer_app.open_module().widgetRepresentation()
    panel = parent.self()
    panel._asked = True  # no worker is started for a picture
    panel._report = lambda message: None
    parent.show()
    parent.enter()
    for name in states(panel, demo):
        slicer_app.process_events(0.05)
        see(name, parent)
    slicer_app.close_module()


def main(demo: Path, out: Path) -> None:
    """Save the pictures."""
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)

    def save(name: str, parent: Any) -> None:
        for width in WIDTHS:
            image = picture(parent, width)
            Image.fromarray(image).save(out / f"{name}_{width}.png")
            if image.shape[1] > width:
                print(f"{name}: {image.shape[1]} px wide, not {width}; widest: {widest(parent)}")

    walk(demo, save)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
