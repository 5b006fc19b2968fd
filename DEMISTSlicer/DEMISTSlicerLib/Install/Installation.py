"""The environment made or removed by a child process: the main thread only hears how far it is."""

from __future__ import annotations

import json
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import qt

from ..I18n import _
from ..Run.Process import Channel, environment, newChannel, pythonProgram, workerArguments
from ..Signal import Signal

#: Milliseconds that the child has to clean up when it is stopped; then it is killed, and the next one cleans up.
PATIENCE = 5000


class Installation:
    """One child at a time, see :mod:`DEMISTCore.environment`.

    Signals: ``progress(text, fraction)``, ``line(text)``: what pip says; at the end one of ``finished()``,
    ``failed(message)``, ``cancelled()``.
    """

    def __init__(self, launch: Callable[[], Channel] | None = None) -> None:
        """Nothing is started; ``launch`` makes the channel to the child."""
        self.progress, self.line = Signal(), Signal()
        self.finished, self.failed, self.cancelled = Signal(), Signal(), Signal()
        self._launch = launch or newChannel
        self._channel: Channel | None = None
        self._rest, self._pid = b"", 0
        self._last: deque[str] = deque(maxlen=12)
        self._deadline: Any = None

    @property
    def isRunning(self) -> bool:
        """True from start to end."""
        return self._channel is not None

    @property
    def lastLines(self) -> list[str]:
        """What pip said last."""
        return list(self._last)

    def build(self, folder: Path, requirements: Path, torch: str = "auto", wheels: Path | None = None) -> bool:
        """Begin to make the environment; see :class:`DEMISTCore.environment.build.Plan`. False: one is running."""
        more = [] if wheels is None else ["--wheels", str(wheels)]
        return self._start(
            ["build", "--folder", str(folder), "--requirements", str(requirements), "--torch", torch, *more]
        )

    def remove(self, folder: Path) -> bool:
        """Begin to delete the environment. False: one is running."""
        return self._start(["remove", "--folder", str(folder)])

    def cancel(self) -> None:
        """Stop; the child cleans up, and ``cancelled`` tells when it has."""
        if self._channel is None or self._deadline is not None:
            return
        self._channel.write(b"stop\n")
        self._deadline = qt.QTimer()
        self._deadline.setSingleShot(True)
        self._deadline.setInterval(PATIENCE)
        self._deadline.connect("timeout()", self._kill)
        self._deadline.start()

    def shutdown(self) -> None:
        """Stop, and wait for the end."""
        channel = self._channel
        if channel is None:
            return
        self.cancel()
        if not channel.wait(PATIENCE):
            self._kill()
            channel.wait(PATIENCE)

    def _start(self, arguments: Sequence[str]) -> bool:
        if self._channel is not None:
            return False
        self._rest, self._pid, self._deadline = b"", 0, None
        self._last.clear()
        self._outcome: dict[str, Any] | None = None
        channel = self._channel = self._launch()
        channel.onOutput = self._onOutput
        channel.onErrorOutput = lambda data: self._say(data.decode("utf-8", "replace"))
        channel.onEnded = self._onEnded
        channel.start(pythonProgram(), [*workerArguments("DEMISTCore.environment"), *arguments], environment())
        return True

    def _kill(self) -> None:
        if self._channel is not None:
            self._channel.kill()
        if self._pid:  # PythonSlicer is a launcher
            with suppress(OSError):
                os.kill(self._pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    def _onOutput(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
                event = message["event"]
            except (ValueError, TypeError, KeyError):
                self._say(line.decode("utf-8", "replace"))
                continue
            if event == "ready":
                self._pid = int(message.get("pid") or 0)
            elif event == "progress":
                self.progress.emit(str(message.get("text")), float(message.get("done") or 0))
            elif event == "line":
                self._say(str(message.get("text")))
            else:
                self._outcome = message

    def _say(self, text: str) -> None:
        for line in filter(None, (line.rstrip() for line in text.splitlines())):
            self._last.append(line)
            self.line.emit(line)

    def _onEnded(self, code: int, text: str) -> None:
        stopped, outcome = self._deadline is not None, self._outcome or {}
        if self._deadline is not None:
            self._deadline.stop()
        self._channel = self._deadline = None
        event = outcome.get("event")
        if event == "done":
            self.finished.emit()
        elif event == "error":
            self.failed.emit(str(outcome.get("message")))
        elif event == "cancelled" or stopped:
            self.cancelled.emit()
        else:
            last = text or (self._last[-1] if self._last else _("it said nothing"))
            self.failed.emit(_("The installation ended by itself ({last}); try again.").format(last=last))
