"""Pictures of the panel in every state, at the widths that people use, to be looked at.

    python -m slicer_app.states DEMO OUT

with ``Testing`` on PYTHONPATH. ``DEMO`` is a folder that ``python -m DEMISTCore.demo`` wrote: its maps and numbers are
what the panel shows after a run, so that no model runs here. A picture that is wider than it was asked for did not fit.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
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
    t1, flair = load(demo / "T1w.nii.gz", "T1w"), load(demo / "FLAIR.nii.gz", "FLAIR")
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
    parameters.unit = "fraction"
    ui.regionsCollapsibleButton.collapsed = ui.displayCollapsibleButton.collapsed = True
    ui.followUpCollapsibleButton.collapsed = False
    compared(panel, demo)
    yield "09_two_visits"
    ui.statisticsCollapsibleButton.collapsed = ui.followUpCollapsibleButton.collapsed = True
    ui.batchCollapsibleButton.collapsed = False
    many(panel)
    yield "10_many_patients"
    ui.batchCollapsibleButton.collapsed = True
    ui.advancedCollapsibleButton.collapsed = False
    for name in ("model", "sampling", "mask", "outputs", "generate"):
        getattr(ui, f"{name}CollapsibleButton").collapsed = True
    with environments(panel) as say:
        for number, state in enumerate(("absent", "installing", "ready", "damaged"), start=11):
            say(state)
            yield f"{number}_environment_{state}"
    panel._onFailed("input", "FLAIR.nii.gz is an empty file; copy it again.")
    yield "15_failed"


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


def compared(panel: Any, demo: Path) -> None:
    """The same numbers at a second visit, one lesion smaller and brighter; compared by a click."""
    from DEMISTSlicerLib.Nodes import Tables

    from DEMISTCore.statistics.table import COLUMNS

    parameters = panel._parameterNode
    rows = [dict(row) for row in statistics(demo)["regions"]]
    for row in rows:
        moved = 0.021 if row["region"] == "lesion" else 0.001
        row |= {
            key: row[key] + moved for key in ("mean", "mean_ci90_low", "mean_ci90_high") if row.get(key) is not None
        }
        row["volume_ml"] *= 0.8 if row["region"] == "lesion" else 1.0
    later = Tables.statisticsTable(rows, COLUMNS, "PSR statistics, visit 2", volumeNode=parameters.psr)
    parameters.earlierTable, parameters.laterTable = parameters.statisticsTable, later
    slicer_app.process_events(0.02)
    panel.ui.compareButton.click()


def many(panel: Any) -> None:
    """A folder of five studies of which two are done, one failed, one runs and one has no FLAIR."""
    from DEMISTSlicerLib.Nodes.Studies import Study
    from DEMISTSlicerLib.Run.BatchResult import BatchResult

    batch = panel.batch
    panel.ui.batchFolderEdit.text = "/data/study"
    batch._show(
        [Study(f"sub-{i:02d}", Path("T1w"), Path("FLAIR"), "T1w and FLAIR") for i in range(1, 5)]
        + [Study("sub-05", problem="sub-05_T1w.nii.gz has no FLAIR beside it.")]
    )
    batch._onDone(0, BatchResult("sub-01", "done", seconds=74.0))
    batch._onDone(1, BatchResult("sub-02", "skipped"))
    batch._onDone(2, BatchResult("sub-03", "failed", message="sub-03_FLAIR.nii.gz is an empty file; copy it again."))
    batch._onStarted(3)


@contextlib.contextmanager
def environments(panel: Any) -> Iterator[Callable[[str], object]]:
    """Environments in folders of their own, made up of no more than the file that describes them."""
    from DEMISTSlicerLib.Install import Place

    from DEMISTCore.environment import Environment
    from DEMISTCore.environment.place import MANIFEST, manifest

    installer, own = panel.installer, panel.installer.hasOwn
    versions = {"torch": "2.14.1", "monai": "1.6.1", "numpy": "2.5.5", "nibabel": "5.4.2"}
    with tempfile.TemporaryDirectory() as folder:
        Place.choose(Path(folder))
        installer.hasOwn = lambda: False

        def say(state: str) -> None:
            there = Place.environmentFolder()
            there.mkdir(exist_ok=True)
            busy = state == "installing"
            if busy:
                panel.progress.show("Fetching torch (0.41 of 0.75 GB)", 0.37, 140.0)
            else:
                panel.progress.stopped("Ready")
            if state == "ready":
                made = Environment(there, "ready", there / "packages-1", (), versions, 1_400_000_000)
                made.packages.mkdir()
                (there / MANIFEST).write_text(json.dumps(manifest(made)))
            if state == "damaged":
                (there / MANIFEST).write_text("{")
            panel.environment.update()
            if busy:
                for name in ("install", "repair", "remove", "wheels", "browseEnvironment", "apply"):
                    getattr(panel.ui, f"{name}Button").enabled = False
                panel.ui.cancelButton.enabled = True
            else:
                panel._updateButtons()

        try:
            yield say
        finally:
            installer.hasOwn = own
            Place.choose(None)


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
