"""A child process and its three streams, by Qt: nothing blocks, everything arrives through the event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt


class QtChannel:
    """A QProcess behind the few calls that :class:`~DEMISTSlicerLib.Run.Process.WorkerProcess` needs.

    Attributes:
        onOutput, onErrorOutput: called with bytes as they arrive.
        onEnded: called once with the exit code and a text, empty if the process ended by itself.
    """

    def __init__(self) -> None:
        self.onOutput: Callable[[bytes], Any] = lambda data: None
        self.onErrorOutput: Callable[[bytes], Any] = lambda data: None
        self.onEnded: Callable[[int, str], Any] = lambda code, text: None
        self._process = qt.QProcess()
        self._over = False
        self._process.connect("readyReadStandardOutput()", self._readOutput)
        self._process.connect("readyReadStandardError()", self._readErrorOutput)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._failed)

    def start(self, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start ``program`` in this process's environment, changed by ``environment``."""
        variables = qt.QProcessEnvironment.systemEnvironment()
        for name, value in environment.items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.start(program, list(arguments))

    def write(self, data: bytes) -> None:
        """Send to the standard input; buffered by Qt, never waits."""
        self._process.write(data)

    def kill(self) -> None:
        """End the process at once; ``onEnded`` is called when it has."""
        if self.isRunning:
            self._process.kill()

    def wait(self, milliseconds: int) -> bool:
        """Wait for the end, blocking; for cleaning up only."""
        return bool(self._process.waitForFinished(milliseconds))

    @property
    def isRunning(self) -> bool:
        """True from start to end."""
        return not self._over and self._process.state() != qt.QProcess.NotRunning

    def _readOutput(self) -> None:
        self.onOutput(_bytes(self._process.readAllStandardOutput()))

    def _readErrorOutput(self) -> None:
        self.onErrorOutput(_bytes(self._process.readAllStandardError()))

    def _finished(self, code: int, status: Any) -> None:
        self._readOutput()
        self._readErrorOutput()
        self._end(code, self._process.errorString() if status == qt.QProcess.CrashExit else "")

    def _failed(self, error: Any) -> None:
        # Of all errors only this one is not followed by finished().
        if error == qt.QProcess.FailedToStart:
            self._end(-1, self._process.errorString())

    def _end(self, code: int, text: str) -> None:
        if not self._over:
            self._over = True
            self.onEnded(int(code), text)


def _bytes(data: Any) -> bytes:
    """The content of a QByteArray."""
    content = data if isinstance(data, (bytes, bytearray)) else data.data()
    return content.encode("utf-8") if isinstance(content, str) else bytes(content)
