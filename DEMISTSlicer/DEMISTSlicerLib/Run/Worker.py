"""The worker as the logic knows it: started when first needed, with a folder of its own, and what it has in memory."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer

from ..I18n import _
from ..RunError import RunError
from ..Signal import Signal
from .Process import Channel, WorkerProcess

if TYPE_CHECKING:
    from DEMISTCore.environment import Environment


class Worker:
    """One child process after the other, and what is known of the present one.

    A child that nothing was heard of for :attr:`IDLE` ends: it holds a model in memory, and on a GPU.

    Signals: ``devicesChanged()``.

    Attributes:
        process: the child; None before it is first needed, and after :meth:`stop`.
        folder: private folder for what is exchanged; None as long as nothing is.
        numbers: of requests; each is given once.
        devices: (name, text) of what it can compute on, best first; None until it was asked.
        images: fingerprint of the images that it has prepared, see :meth:`.RunInputs.RunInputs.fingerprint`; or None.
    """

    #: Seconds without a message after which a child that has nothing to do is ended.
    IDLE = 1800.0

    def __init__(
        self,
        launch: Callable[[], Channel] | None,
        log: Callable[[str], Any],
        isBusy: Callable[[], bool] = lambda: False,
        environment: Callable[[], Environment | None] = lambda: None,
    ) -> None:
        """Nothing is started.

        Args:
            launch: makes the channel to the child, see :class:`~DEMISTSlicerLib.Run.Process.WorkerProcess`.
            log: told why devices could not be found.
            isBusy: whether a run needs the child just now.
            environment: gives the environment to start a child in; None: Slicer's own Python as it is.
        """
        self._isBusy, self._environment = isBusy, environment
        self._idle = qt.QTimer()
        self._idle.setSingleShot(True)
        self._idle.connect("timeout()", self._onIdle)
        self.devicesChanged = Signal()
        self.process: WorkerProcess | None = None
        self.folder: Path | None = None
        self.numbers = itertools.count(1)
        self.devices: list[tuple[str, str]] | None = None
        self.images: Any = None
        self._launch, self._log = launch, log
        self._hasModel = False
        self._asked: int | None = None

    def open(self) -> WorkerProcess:
        """The child, and a folder to exchange files in; it is started by the first that is sent to it.

        Raises:
            RunError: there can be no folder.
        """
        if self.folder is None:
            try:
                place = getattr(slicer.app, "temporaryPath", None) or None
                self.folder = Path(tempfile.mkdtemp(prefix="DEMIST-", dir=place))
            except OSError as error:
                raise RunError(
                    "input",
                    _(
                        "Slicer's temporary folder cannot be written to ({reason}); choose another one in Edit > "
                        "Application Settings > General."
                    ).format(reason=error.strerror or error),
                ) from error
        if self.process is None:
            self.process = WorkerProcess(self._launch, self.folder, self._environment)
            self.process.messageReceived.connect(self._onMessage)
            self.process.ended.connect(self._onEnded)
        return self.process

    def stop(self) -> None:
        """End the child and wait until it is gone."""
        self._idle.stop()
        if self.process is not None:
            process, self.process = self.process, None
            process.stop()
            process.join(2000)

    def removeFolder(self) -> None:
        """Leave no files behind."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def askDevices(self, bundle: str | None = None) -> None:
        """Let it look for GPUs, and bring a model into memory on the occasion; ``devicesChanged`` tells when it has."""
        request: dict[str, Any] = {"do": "hello", "devices": True}
        if bundle:
            request["bundle"] = bundle
        self._asked = next(self.numbers)
        self.open().send({**request, "id": self._asked})

    def resolved(self, device: str) -> str:
        """What "auto" will be, as far as it is known."""
        return self.devices[0][0] if device == "auto" and self.devices else device

    def remember(self, images: Any) -> None:
        """It has the model in memory, and the images with this fingerprint; None: no images of the scene."""
        self._hasModel, self.images = True, images

    @property
    def isWarm(self) -> bool:
        """True while it has a model in memory."""
        return self._hasModel and self.process is not None and self.process.isRunning

    def _onIdle(self) -> None:
        if self._isBusy() or self._asked is not None:
            self._idle.start()
        else:
            self.stop()

    def _onMessage(self, message: dict[str, Any]) -> None:
        self._idle.setInterval(int(1000 * self.IDLE))
        self._idle.start()
        if message.get("id") != self._asked or self._asked is None:
            return
        if message.get("event") == "done":
            self.devices = [tuple(pair) for pair in message.get("devices") or ()] or None
            self._hasModel = self._hasModel or "bundle" in message
            self._asked = None
            self.devicesChanged.emit()
        elif message.get("event") in ("error", "cancelled"):
            self._asked = None
            self._log(str(message.get("message") or ""))

    def _onEnded(self, code: int, text: str) -> None:
        self._hasModel, self.images, self._asked = False, None, None
