"""One run: inputs written, the worker asked, its answers followed, results made; or stopped, at any point of that."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk

from ..I18n import _
from ..RunError import RunError
from ..Signal import Signal
from .Process import EXIT_MISSING, WorkerProcess
from .RunInputs import NAMES
from .Sentences import inLanguage
from .Steps import Steps
from .Task import Task

#: A job of no particular length takes the event loop's whole attention no longer than this (seconds) per turn.
_PAUSE = 0.005


class Job:
    """A run and its handle. Everything happens on the main thread, in slices.

    Signals: ``progress(stage, fraction, remainingSeconds)``, ``log(text)``, ``estimate(message)``, and at the end
    exactly one of ``finished(result)``, ``failed(kind, message)``, ``cancelled()``.

    Attributes:
        id: number in the protocol.
        task: what is run; kind: what is asked of the worker.
        result: what the run made; None before, or if it made nothing.
        error: why it failed, or None.
    """

    #: Seconds that the worker has to stop by itself; then it is killed, and started again with the next run.
    PATIENCE = 1.5

    def __init__(self, process: WorkerProcess, id: int, folder: Path, task: Task) -> None:
        """Prepare; :meth:`start` begins.

        Args:
            process: the worker.
            id: a number that no other job has.
            folder: of this job alone; made here, removed at the end.
            task: what to run. It is stopped when one of its inputs is deleted; nodes that its ``make`` adds to the
                scene are removed again if it fails or is stopped.
        """
        self.progress, self.log, self.estimate = Signal(), Signal(), Signal()
        self.finished, self.failed, self.cancelled = Signal(), Signal(), Signal()
        self.id, self.task, self.kind = id, task, task.kind
        self.result: Any = None
        self.error: RunError | None = None
        self._process, self._folder = process, folder
        self._needed = [(NAMES[key], node, node.GetName()) for key, node in task.inputs.given]
        self._steps: Steps | None = None
        self._over = False
        self._stopping: RunError | None = None
        self._sent = False
        self._start = time.monotonic()
        self._deadline: Any = None
        self._handles: list[tuple[Signal, int]] = []
        self._observed: list[int] = []
        self._made: list[Any] = []
        self._recording = False

    @property
    def isRunning(self) -> bool:
        """True until one of the last signals was emitted."""
        return not self._over

    @property
    def seconds(self) -> float:
        """Since the run was asked for."""
        return time.monotonic() - self._start

    def start(self) -> Job:
        """Begin: start the worker if need be, and write the inputs while it wakes up."""
        if self._over:  # cancelled before it began
            return self
        self._handles = [
            (signal, signal.connect(slot))
            for signal, slot in (
                (self._process.messageReceived, self._onMessage),
                (self._process.ended, self._onEnded),
                (self._process.textReceived, self.log.emit),
            )
        ]
        scene = slicer.mrmlScene
        self._observed = [
            scene.AddObserver(scene.StartCloseEvent, self._onSceneCloses),
            scene.AddObserver(scene.NodeRemovedEvent, self._onNodeRemoved),
            scene.AddObserver(scene.NodeAddedEvent, self._onNodeAdded),
        ]
        self._observedScene = scene
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._process.start()
        except (OSError, RunError) as error:
            self._fail(error if isinstance(error, RunError) else RunError("input", str(error)))
            return self
        if self._over:  # the program is not there, and Qt has said so already
            return self
        self._steps = Steps(self.task.inputs.write(self._folder), self._send, self._fail)
        self.progress.emit(_("Sending images"), 0.0, None)
        return self

    def cancel(self) -> None:
        """Stop, wherever the run is; takes effect within two seconds."""
        self._stop(RunError("cancelled", _("The run was cancelled.")))

    def abandon(self) -> None:
        """Be cancelled at once: the worker is gone, or will be."""
        self._end(self._stopping or RunError("cancelled", _("The run was cancelled.")))

    def wait(self, timeout: float | None = None) -> Any:
        """Let the application work until the run is over; returns the result.

        Args:
            timeout: seconds after which to give up waiting; None: never.

        Raises:
            RunError: the run failed, or was cancelled (kind ``cancelled``).
            TimeoutError: it is not over yet.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self._over:
            if end is not None and time.monotonic() > end:
                raise TimeoutError(_("The run is not over yet."))
            slicer.app.processEvents()
            time.sleep(_PAUSE)
        if self.error is not None:
            raise self.error
        return self.result

    # --- stages --------------------------------------------------------------------------------------------------

    def _send(self, volumes: dict[str, Any]) -> None:
        self._steps = None
        self._sent = True
        self._process.send({**self.task.request, **volumes, "id": self.id, "folder": str(self._folder)})

    def _onMessage(self, message: dict[str, Any]) -> None:
        if message.get("event") == "ready" or message.get("id") != self.id or self._over:
            return
        event = message.get("event")
        if event == "log":
            self.log.emit(str(message.get("text")))
        elif event == "error":
            if message.get("traceback"):
                self.log.emit(message["traceback"])
            self._fail(RunError(message.get("kind", "internal"), inLanguage(message.get("message", ""))))
        elif event == "cancelled":
            self._fail(RunError("cancelled", _("The run was cancelled.")))
        elif self._stopping is not None:
            # What still comes in while it stops is of no use any more; a result neither.
            if event == "done":
                self._end(self._stopping)
        elif event == "progress":
            self.progress.emit(message.get("stage", ""), float(message.get("done") or 0), message.get("remaining"))
        elif event == "estimate":
            self.estimate.emit(message)
        elif event == "done":
            # The steps first: whoever hears of the progress may cancel.
            self._steps = Steps(self._recorded(self.task.make(message)), self._finish, self._fail)
            self.progress.emit(_("Loading results"), 1.0, 0.0)

    def _recorded(self, make: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
        """``make``, with a note of the nodes that it adds: between its slices others may add theirs."""
        while True:
            self._recording = True
            try:
                pause = next(make)
            except StopIteration as stopped:
                result = stopped.value
                break
            finally:
                self._recording = False
            yield pause
        # Large files take their time to go, too.
        for path in list(self._folder.iterdir()) if self._folder.is_dir() else []:
            yield True
            with suppress(OSError):
                path.unlink()
        return result

    def _finish(self, result: Any) -> None:
        self.result = result
        self._made = []
        self._end(None)

    # --- ends ----------------------------------------------------------------------------------------------------

    def _stop(self, why: RunError) -> None:
        if self._over or self._stopping is not None:
            return
        self._stopping = why
        if self._steps is not None or not self._sent:
            self._end(why)
            return
        self._process.send({"id": self.id, "do": "cancel", "target": self.id})
        self._deadline = qt.QTimer()
        self._deadline.setSingleShot(True)
        self._deadline.setInterval(int(1000 * self.PATIENCE))
        self._deadline.connect("timeout()", self._onDeadline)
        self._deadline.start()

    def _onDeadline(self) -> None:
        if not self._over:
            why = self._stopping
            self._end(why)
            self._process.stop()

    def _onEnded(self, code: int, text: str) -> None:
        if text:
            self.log.emit(text)
        if self._steps is not None and self._sent:
            return  # everything has come in already
        last = text.splitlines()[-1] if text else _("it said nothing")
        kind = "internal"
        if code == -1 and not self._sent:
            sentence = _("The DEMIST worker could not be started ({last}); install DEMIST's dependencies again.")
        elif code == EXIT_MISSING:
            kind = "dependency"
            sentence = _("The DEMIST worker cannot run ({last}); install DEMIST's dependencies and press Apply again.")
        else:
            sentence = _(
                "The DEMIST worker ended in the middle of the run (code {code}: {last}); often memory ran out. Press "
                "Apply to start it again."
            )
        self._fail(RunError(kind, sentence.format(code=code, last=last)))

    def _onSceneCloses(self, *_arguments: Any) -> None:
        self._stop(RunError("cancelled", _("The scene was closed, so the run was stopped.")))

    def _onNodeRemoved(self, *_arguments: Any) -> None:
        for name, node, called in self._needed:
            if node.GetScene() is None:
                self._stop(
                    RunError(
                        "input",
                        _("The {name} {called} was deleted during the run, so it was stopped; choose another.").format(
                            name=name, called=called
                        ),
                    )
                )
                return

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, _caller: Any, _event: str, node: Any) -> None:
        if self._recording:
            self._made.append(node)

    def _fail(self, error: Exception) -> None:
        if self._over:
            return
        if self._stopping is not None:  # whatever comes now comes from stopping
            error = self._stopping
        if not isinstance(error, RunError):
            known = type(error).__module__.startswith("DEMISTCore")
            if not known:
                self.log.emit("".join(traceback.format_exception(error)))
            words = (
                str(error)
                if known
                else _("DEMIST failed unexpectedly ({error}); see the log.").format(
                    error=f"{type(error).__name__}: {error}"
                )
            )
            error = RunError("input" if known else "internal", words)
        self._end(error)

    def _end(self, error: RunError | None) -> None:
        """Clean up, then tell how it went: once."""
        if self._over:
            return
        self._over = True
        self.error = error
        if self._steps is not None:
            self._steps.stop()
            self._steps = None
        if self._deadline is not None:
            self._deadline.stop()
        for signal, handle in self._handles:
            signal.disconnect(handle)
        for tag in self._observed:
            self._observedScene.RemoveObserver(tag)
        self._observed = []
        for node in reversed(self._made):
            if node.GetScene() is not None:
                node.GetScene().RemoveNode(node)
        self._made = []
        shutil.rmtree(self._folder, ignore_errors=True)
        if error is None:
            self.finished.emit(self.result)
        elif error.kind == "cancelled":
            self.log.emit(str(error))
            self.cancelled.emit()
        else:
            self.failed.emit(error.kind, str(error))
