"""Many pairs one after the other, without anybody waiting: for the panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt

from ..I18n import _
from ..Nodes import Volumes
from ..Nodes.Studies import Study, loadSeries
from ..RunError import RunError
from ..Signal import Signal
from .Batch import outputFile
from .BatchResult import BatchResult

if TYPE_CHECKING:
    from DEMISTCore.options import SynthesisOptions


class BatchRun:
    """Synthesizes study after study; one that fails does not stop the others, Cancel does.

    Signals: ``itemStarted(index)``, ``itemDone(index, result)``, and at the end ``finished(results)``.

    Args:
        logic: a :class:`.Logic.DEMISTSlicerLogic`.
        load: brings a DICOM series into the scene, see :func:`.Studies.loadSeries`.
    """

    def __init__(self, logic: Any, load: Callable[[str], Any] = loadSeries) -> None:
        self.itemStarted, self.itemDone, self.finished = Signal(), Signal(), Signal()
        self.isRunning = False
        self._logic, self._load = logic, load
        self._studies: list[Study] = []
        self._results: list[BatchResult] = []
        self._cancelled = False

    def start(
        self,
        studies: Sequence[Study],
        options: SynthesisOptions | None = None,
        root: Path | None = None,
        outputFolder: Path | None = None,
    ) -> None:
        """Begin, and return at once.

        Args:
            studies: what there is; those with a problem count as failed, those with a map are skipped.
            options: how maps are made.
            root: folder that files were found in.
            outputFolder: where maps of files go, at the same places as below ``root``; None: beside the T1w. Maps of
                volumes in the scene come into the scene.
        """
        self._studies, self._results = list(studies), []
        self._options, self._root, self._outputFolder = options, root, outputFolder
        self.isRunning, self._cancelled = True, False
        self._later()

    def cancel(self) -> None:
        """Stop after what is running, which is stopped, too."""
        self._cancelled = True
        self._logic.cancel()

    def _later(self) -> None:
        """The next one, when the event loop turns: the logic is told of an end before it is idle."""
        qt.QTimer.singleShot(0, self._next)

    def _next(self) -> None:
        index = len(self._results)
        if self._cancelled or index == len(self._studies):
            self.isRunning = False
            self.finished.emit(list(self._results))
            return
        study = self._studies[index]
        self.itemStarted.emit(index)
        if study.problem:
            self._done(BatchResult(study.name, "failed", message=study.problem))
            return
        try:
            self._begin(study)
        except RunError as error:
            self._done(BatchResult(study.name, "failed", message=str(error)))

    def _begin(self, study: Study) -> None:
        def onError(kind: str, message: str) -> None:
            self._cancelled = self._cancelled or kind == "cancelled"
            self._done(BatchResult(study.name, "cancelled" if kind == "cancelled" else "failed", message=message))

        if isinstance(study.t1, Path):
            out = outputFile(study.t1, self._root, self._outputFolder)
            if out.exists():
                self._done(BatchResult(study.name, "skipped", out))
                return
            self._logic.synthesizeFile(
                study.t1,
                study.flair,
                out,
                self._options,
                wait=False,
                onError=onError,
                onDone=lambda made: self._done(BatchResult(study.name, "done", out, seconds=made.seconds)),
            )
            return
        t1, flair = self._loaded(study) if study.isDicom else (study.t1, study.flair)
        there = Volumes.mapOf(t1) if t1.GetScene() is not None else None
        if there is not None:
            self._done(BatchResult(study.name, "skipped", there))
            return
        self._logic.synthesize(
            t1,
            flair,
            self._options,
            wait=False,
            onError=onError,
            onDone=lambda made: self._done(
                BatchResult(study.name, "done", made.psr, made.uncertainty, seconds=made.seconds)
            ),
        )

    def _loaded(self, study: Study) -> list[Any]:
        nodes = []
        for series, called in ((study.t1, "T1w"), (study.flair, "FLAIR")):
            node = self._load(series)
            if node is None:
                raise RunError(
                    "input",
                    _(
                        "The {image} could not be loaded from the DICOM database; load it by hand in "
                        "the module DICOM to see why."
                    ).format(image=called),
                )
            nodes.append(node)
        return nodes

    def _done(self, result: BatchResult) -> None:
        self._results.append(result)
        self.itemDone.emit(len(self._results) - 1, result)
        self._later()
