"""The child process that computes, behind its protocol: dictionaries in, dictionaries out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..Core import coreFolder
from ..Signal import Signal

if TYPE_CHECKING:
    from DEMISTCore.environment import Environment


#: Exit code of a worker that a package is missing to: DEMISTCore.worker.protocol.EXIT_MISSING (a test compares).
EXIT_MISSING = 69


class Channel(Protocol):
    """What :class:`WorkerProcess` needs of a process; :class:`~DEMISTSlicerLib.Run.QtChannel.QtChannel` is one."""

    onOutput: Callable[[bytes], Any]
    onErrorOutput: Callable[[bytes], Any]
    onEnded: Callable[[int, str], Any]

    def start(self, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it."""

    def write(self, data: bytes) -> None:
        """Send to its standard input."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self, milliseconds: int) -> bool:
        """Wait for its end, blocking."""

    @property
    def isRunning(self) -> bool:
        """True from start to end."""


class WorkerProcess:
    """``PythonSlicer -P -m DEMISTCore.worker``, started when first needed; see :mod:`DEMISTCore.worker.protocol`.

    Signals: ``messageReceived(dict)``; ``textReceived(str)``: a line of its standard error, or one on its output that
    is no message; ``ended(code, text)``: the process is gone, with the last lines it wrote.

    Attributes:
        pid: of the Python process; None until it is ready.
    """

    def __init__(
        self,
        launch: Callable[[], Channel] | None = None,
        folder: Path | None = None,
        environment: Callable[[], Environment | None] = lambda: None,
    ) -> None:
        """Nothing is started yet.

        Args:
            launch: makes a channel; default a :class:`~DEMISTSlicerLib.Run.QtChannel.QtChannel`.
            folder: private folder for what is exchanged; the child removes it if this process dies.
            environment: gives the environment to start a child in; None: Slicer's own Python as it is.
        """
        self._environment = environment
        self.messageReceived = Signal()
        self.textReceived = Signal()
        self.ended = Signal()
        self.pid: int | None = None
        self._launch = launch or newChannel
        self._folder = folder
        self._channel: Channel | None = None
        self._dying: list[Channel] = []
        self._rest = b""
        self._last: deque[str] = deque(maxlen=15)

    @property
    def isRunning(self) -> bool:
        """True if there is a child."""
        return self._channel is not None and self._channel.isRunning

    def start(self) -> None:
        """Start the child unless there is one. What goes wrong is told by ``ended``."""
        if self.isRunning:
            return
        self._rest, self.pid = b"", None
        self._last.clear()
        channel = self._channel = self._launch()
        channel.onOutput = self._onOutput
        channel.onErrorOutput = self._onErrorOutput
        # A channel that was given up must not end its successor.
        channel.onEnded = lambda code, text: self._onEnded(channel, code, text)
        found = self._environment()
        arguments, variables = (
            (workerArguments(), environment())
            if found is None
            else (environmentArguments(found), {**environment(found.packages), **_variables(found)})
        )
        if self._folder is not None:
            arguments += ["--folder", str(self._folder)]
        channel.start(pythonProgram(), arguments, variables)

    def send(self, message: dict[str, Any]) -> None:
        """Send a request; starts the child if need be."""
        self.start()
        # ASCII: a path whose bytes are no UTF-8 becomes JSON's escapes.
        self._channel.write(json.dumps(message).encode("ascii") + b"\n")

    def stop(self, timeoutMs: int = 0) -> None:
        """End the child: politely if ``timeoutMs`` is above 0 (blocking as long as that), then, or else, at once."""
        channel = self._channel
        if channel is None or not channel.isRunning:
            return
        if timeoutMs > 0:
            self.send({"id": 0, "do": "shutdown"})
            if channel.wait(timeoutMs):
                return
        pid = self.pid
        # From here on this child is history: a request that comes before it is quite dead goes to a new one.
        self._channel, self.pid = None, None
        self._dying = [other for other in self._dying if other.isRunning] + [channel]
        channel.kill()
        # PythonSlicer is a launcher: killing it alone would leave the Python that it started to find out by itself.
        if pid is not None:
            with suppress(OSError):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self.ended.emit(0, "")

    def join(self, timeoutMs: int) -> None:
        """Wait for children that were stopped to be gone, blocking; a killed one takes milliseconds."""
        for channel in self._dying:
            if channel.isRunning:
                channel.wait(timeoutMs)
        self._dying = []

    def _onOutput(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                self._tell(line)
                continue
            if message.get("event") == "ready":
                self.pid = message.get("pid")
            self.messageReceived.emit(message)

    def _onErrorOutput(self, data: bytes) -> None:
        for line in data.splitlines():
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self._last.append(text)
            self.textReceived.emit(text)

    def _onEnded(self, channel: Channel, code: int, text: str) -> None:
        if channel is not self._channel:
            return
        self._channel, self.pid = None, None
        self.ended.emit(code, "\n".join([*self._last, *([text] if text else [])]))


def pythonProgram() -> str:
    """Slicer's Python, or the one that runs."""
    return shutil.which("PythonSlicer") or sys.executable


def workerArguments(module: str = "DEMISTCore.worker") -> list[str]:
    """How the worker, or another program of the core, is started in Slicer's own Python.

    Never with modules out of the working directory, where a ``json.py`` may lie. Python knows ``-P`` from 3.11 on;
    before, the entry is taken off the path by hand.
    """
    if sys.version_info >= (3, 11):
        return ["-P", "-m", module]
    start = "import sys; del sys.path[0]; import runpy; "
    start += f"runpy.run_module({module!r}, run_name='__main__')"
    return ["-c", start]


def environmentArguments(found: Environment) -> list[str]:
    """How the worker is started in an environment of its own."""
    from DEMISTCore.environment import arguments

    return arguments("DEMISTCore.worker", coreFolder(), found.packages, found.shared)


def _variables(found: Environment) -> dict[str, str]:
    from DEMISTCore.environment import variables

    return variables(found)


def environment(packages: Path | None = None) -> dict[str, str]:
    """What the child's environment variables need besides ours; ``packages`` are searched before Slicer's own."""
    own = [str(packages)] if packages is not None else []
    path = [str(coreFolder()), *own, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
        "PYTHONSAFEPATH": "1",  # for the worker's own children
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        # Slicer's own ITK plugins do not fit into the ITK of another SimpleITK.
        "ITK_AUTOLOAD_PATH": "",
    }


def newChannel() -> Channel:
    """A child process by Qt."""
    from .QtChannel import QtChannel

    return QtChannel()
