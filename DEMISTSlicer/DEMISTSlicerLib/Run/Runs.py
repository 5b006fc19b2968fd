"""Tasks run on the worker, one at a time, and told of as they go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..I18n import _
from ..RunError import RunError
from ..Signal import Signal
from .Callbacks import Callbacks
from .Job import Job
from .PreviewFeed import PreviewFeed
from .Stages import stageText
from .Task import Task
from .Worker import Worker


class Runs:
    """Makes a job of each task and tells people how it goes.

    Signals: ``started(kind)``, ``progressChanged(stage, fraction, remainingSeconds)``, and at the end one of
    ``finished(result)``, ``failed(kind, message)``, ``cancelled()``.

    Attributes:
        job: the latest; None before the first.
        preview: where estimates go.
    """

    def __init__(self, worker: Worker, log: Callable[[str], Any]) -> None:
        """Nothing runs.

        Args:
            worker: what computes.
            log: told what goes on, line by line.
        """
        self.started, self.progressChanged = Signal(), Signal()
        self.finished, self.failed, self.cancelled = Signal(), Signal(), Signal()
        self.job: Job | None = None
        self.preview = PreviewFeed(log)
        self._worker, self._log = worker, log

    @property
    def currentJob(self) -> Job | None:
        """The job that runs, or None."""
        return self.job if self.job is not None and self.job.isRunning else None

    def checkIdle(self) -> None:
        """Raise RunError while a job runs."""
        if self.currentJob is not None:
            raise RunError("input", _("A run is in progress; wait for its end, or cancel it first."))

    def run(self, task: Task, wait: bool, callbacks: Callbacks) -> Any:
        """Run a task.

        Returns:
            Its result, with the application alive meanwhile; without ``wait`` the job, at once.

        Raises:
            RunError: it cannot begin; when waiting, whatever goes wrong.
        """
        process, number = self._worker.open(), next(self._worker.numbers)
        job = self.job = Job(process, number, self._worker.folder / f"job-{number}", task)
        if task.request.get("preview"):
            self.preview.begin(task.inputs.frame)
        job.log.connect(self._log)
        job.estimate.connect(self.preview.show)
        for signal, slot in (
            (job.progress, self._onProgress),
            (job.finished, self._onFinished),
            (job.failed, self._onFailed),
            (job.cancelled, self._onCancelled),
        ):
            signal.connect(partial(slot, job, callbacks))
        self.started.emit(job.kind)
        job.start()
        return job.wait() if wait else job

    def shutdown(self) -> None:
        """Stop what runs, end the worker, remove its files."""
        job = self.currentJob
        if job is not None:
            job.cancel()
        self._worker.stop()
        if job is not None and job.isRunning:
            job.abandon()
        self.preview.end()
        self._worker.removeFolder()

    # --- what the job says ---------------------------------------------------------------------------------------

    def _onProgress(self, job: Job, callbacks: Callbacks, stage: str, fraction: float, remaining: float | None) -> None:
        expected = job.task.expectedSeconds
        if remaining is None and expected is not None and job.seconds < expected:
            remaining = expected - job.seconds  # past the expected end nothing is known any more
        words = stageText(stage)
        self.progressChanged.emit(words, fraction, remaining)
        if callbacks.onProgress is not None:
            callbacks.onProgress(words, fraction, remaining)

    def _onFinished(self, job: Job, callbacks: Callbacks, result: Any) -> None:
        self.preview.end()
        result.seconds = round(job.seconds, 3)
        self.finished.emit(result)
        if callbacks.onDone is not None:
            callbacks.onDone(result)

    def _onFailed(self, job: Job, callbacks: Callbacks, kind: str, message: str) -> None:
        self.preview.end()
        self._log(message)
        self.failed.emit(kind, message)
        if callbacks.onError is not None:
            callbacks.onError(kind, message)

    def _onCancelled(self, job: Job, callbacks: Callbacks) -> None:
        self.preview.end()
        self.cancelled.emit()
        if callbacks.onError is not None:
            callbacks.onError("cancelled", str(job.error))
