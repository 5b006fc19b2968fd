"""The section Many patients: what there is, how far it is, and what failed with its sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import qt
import slicer

from ..I18n import _
from ..Nodes.Studies import Study, databaseStudies, loadSeries, sceneStudies
from ..Run.Batch import findStudies
from ..Run.BatchResult import BatchResult
from ..Run.BatchRun import BatchRun
from ..RunError import RunError
from .Choice import Choice

FOLDER, SCENE, DATABASE = "folder", "scene", "database"
_STATES = {
    "done": _("done in {seconds:.0f} s"),
    "skipped": _("there already"),
    "failed": _("failed: {message}"),
    "cancelled": _("cancelled"),
}


class BatchPanel:
    """Finds studies and synthesizes them all.

    Args:
        ui: the panel's widgets.
        logic: what runs.
        begin: calls a function as soon as there is something that can compute, see :meth:`.Actions.run`.
        options: gives how maps are made, see :meth:`.SamplingPanel.options`.
        report: shows a sentence about what went wrong.
        use: takes T1w and FLAIR nodes as inputs.
        onChanged: called when what can be pressed may have changed.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        begin: Callable[[Callable[[], object]], object],
        options: Callable[[], Any],
        report: Callable[[str], object],
        use: Callable[[Any, Any], object],
        onChanged: Callable[[], object],
    ) -> None:
        self.ui, self.run = ui, BatchRun(logic)
        self._start, self._options, self._report = begin, options, report
        self._use, self._onChanged = use, onChanged
        self._studies: list[Study] = []
        self._root: Path | None = None
        self.source = Choice(ui.batchSourceComboBox, lambda _value: self.forget())
        self.source.fill(
            [
                (FOLDER, _("Files in a folder"), _("T1w and FLAIR are found by name, BIDS or not. Maps become files.")),
                (SCENE, _("Studies in the scene"), _("By the subject hierarchy. Maps come into the scene.")),
                (DATABASE, _("DICOM database"), _("By patient and study; pairs are loaded, maps come into the scene.")),
            ],
            FOLDER,
        )
        table = ui.batchTable
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.verticalHeader().hide()
        table.setWordWrap(True)
        self._buttons = (
            (ui.browseBatchButton, self.browse),
            (ui.browseBatchOutputButton, self.browseOutput),
            (ui.findBatchButton, self.find),
            (ui.batchButton, self.synthesize),
            (ui.useBatchButton, self.use),
        )
        for button, slot in self._buttons:
            button.connect("clicked()", slot)
        table.connect("itemSelectionChanged()", self.update)
        self._handles = [
            (signal, signal.connect(slot))
            for signal, slot in (
                (self.run.itemStarted, self._onStarted),
                (self.run.itemDone, self._onDone),
                (self.run.finished, self._onFinished),
            )
        ]
        self.forget()

    @property
    def isRunning(self) -> bool:
        """Whether studies are being synthesized."""
        return self.run.isRunning

    def disconnect(self) -> None:
        """Hear no more of the widgets; what runs is stopped."""
        if self.isRunning:
            self.run.cancel()
        self.source.disconnect()
        for button, slot in self._buttons:
            button.disconnect("clicked()", slot)
        self.ui.batchTable.disconnect("itemSelectionChanged()", self.update)
        for signal, handle in self._handles:
            signal.disconnect(handle)

    def update(self, busy: bool | None = None) -> None:
        """What can be pressed just now."""
        ui, files = self.ui, self.source.value == FOLDER
        busy = self.isRunning if busy is None else busy
        for name in (
            "batchFolderLabel",
            "batchFolderEdit",
            "browseBatchButton",
            "batchOutputLabel",
            "batchOutputEdit",
            "browseBatchOutputButton",
        ):
            getattr(ui, name).visible = files
        for button, ready in (
            (ui.browseBatchButton, True),
            (ui.browseBatchOutputButton, True),
            (ui.findBatchButton, not files or bool(ui.batchFolderEdit.text)),
            (ui.batchButton, any(not study.problem for study in self._studies)),
            (ui.useBatchButton, self._selected() is not None and not self._selected().problem),
        ):
            button.enabled = ready and not busy

    def browse(self) -> None:
        """Choose the folder and look into it."""
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of images"), self.ui.batchFolderEdit.text)
        if folder:
            self.ui.batchFolderEdit.text = folder
            self.find()

    def browseOutput(self) -> None:
        """Choose where maps go."""
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the maps"), self.ui.batchOutputEdit.text)
        if folder:
            self.ui.batchOutputEdit.text = folder

    def forget(self) -> None:
        """Show no studies: where they were looked for is another place."""
        self._show([])
        self.ui.batchLabel.text = ""

    def find(self) -> None:
        """Look for pairs where the user said."""
        self._root = Path(self.ui.batchFolderEdit.text) if self.source.value == FOLDER else None
        try:
            self._show(self._found())
        except RunError as error:
            self._report(str(error))
            return
        usable = sum(not study.problem for study in self._studies)
        self.ui.batchLabel.text = _("Pairs: {count}. Without a pair: {odd}.").format(
            count=usable, odd=len(self._studies) - usable
        )

    def _found(self) -> Iterable[Study]:
        if self.source.value == FOLDER:
            return findStudies(self._root)
        if self.source.value == SCENE:
            return sceneStudies(slicer.mrmlScene)
        database = getattr(slicer, "dicomDatabase", None)
        if database is None or not getattr(database, "isOpen", False):
            raise RunError("input", _("There is no DICOM database; open the module DICOM once to make one."))
        found = []
        for study in databaseStudies(database):
            found.append(study)
            slicer.app.processEvents()  # a large database takes seconds
        return found

    def synthesize(self) -> None:
        """All of them, one after the other."""
        output = self.ui.batchOutputEdit.text
        self._start(
            lambda: self.run.start(self._studies, self._options(), self._root, Path(output) if output else None)
        )
        self._onChanged()

    def use(self) -> None:
        """Take the pair of the row chosen as inputs, loaded if need be."""
        study = self._selected()
        if study is None:
            return
        load = loadSeries if study.isDicom else _loadFile if isinstance(study.t1, Path) else lambda node: node
        pair = [load(image) for image in (study.t1, study.flair)]
        if all(node is not None for node in pair):
            self._use(*pair)
        else:
            self._report(_("{images} could not be loaded.").format(images=study.images))

    def _selected(self) -> Study | None:
        row = self.ui.batchTable.currentRow()
        return self._studies[row] if 0 <= row < len(self._studies) else None

    def _show(self, studies: Iterable[Study]) -> None:
        self._studies = list(studies)
        table = self.ui.batchTable
        table.clear()
        table.setColumnCount(2)
        table.setRowCount(len(self._studies))
        table.setHorizontalHeaderLabels([_("study"), _("state")])
        for row, study in enumerate(self._studies):
            item = qt.QTableWidgetItem(study.name)
            item.setToolTip(study.images)
            table.setItem(row, 0, item)
            self._tell(row, study.problem)
        table.visible = bool(self._studies)
        table.resizeColumnsToContents()
        table.setColumnWidth(0, min(table.columnWidth(0), 170))
        table.horizontalHeader().setStretchLastSection(True)
        table.resizeRowsToContents()
        self.update()

    def _tell(self, row: int, text: str) -> None:
        """The state of a study, whole in the tooltip as well."""
        item = qt.QTableWidgetItem(text)
        item.setToolTip(text)
        self.ui.batchTable.setItem(row, 1, item)
        self.ui.batchTable.resizeRowToContents(row)

    def _onStarted(self, index: int) -> None:
        self._tell(index, _("running"))
        self.ui.batchTable.scrollToItem(self.ui.batchTable.item(index, 1))

    def _onDone(self, index: int, result: BatchResult) -> None:
        self._tell(index, _STATES[result.status].format(seconds=result.seconds, message=result.message))
        self.ui.batchLabel.text = _("{done} of {all}").format(done=index + 1, all=len(self._studies))

    def _onFinished(self, results: list[BatchResult]) -> None:
        counts = Counter(result.status for result in results)
        self.ui.batchLabel.text = _("{done} done, {skipped} there already, {failed} failed, {left} not begun.").format(
            done=counts["done"],
            skipped=counts["skipped"],
            failed=counts["failed"],
            left=len(self._studies) - len(results) + counts["cancelled"],
        )
        self._onChanged()


def _loadFile(path: Path) -> Any:
    return slicer.util.loadVolume(str(path))
