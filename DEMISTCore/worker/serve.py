"""The process: reads requests, runs jobs one by one, ends when its parent does.

Three threads. The main one works. A reader takes lines from standard input, so that a cancel reaches a job in the
middle of its work; when the input ends, the parent is gone, and so is this process at once, whatever it is computing.
A watcher looks for the parent as well: another child of the parent may hold the pipe open after its death.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from ..cli import sentence
from ..devices import memory_errors
from ..errors import BundleError, Cancelled, DemistError, MemoryShortage
from .cache import Cache
from .context import Context
from .exchange import disk_sentence
from .protocol import MAX_LINE, PROTOCOL, ProtocolError, Sender, decode
from .signals import on_signals

#: Folders that a parent makes for a worker, and that it may remove when the parent is dead, begin like this.
FOLDER_PREFIX = "DEMIST-"
#: Seconds between two looks at the parent.
_LOOK = 1.0


class Worker:
    """Serves requests from ``source`` and answers on ``sender`` until the input ends.

    Attributes:
        current: id of the job that runs, else None.
    """

    def __init__(self, source: BinaryIO, sender: Sender, private: Path | None = None) -> None:
        self._source, self._send, self._private = source, sender, private
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._cancelled: dict[int, threading.Event] = {}  # by id, of jobs that wait or run
        self._lock = threading.Lock()
        self._cache = Cache()
        self.current: int | None = None
        self._parent = os.getppid()  # now: when a thread gets to look, the parent may be dead already

    def run(self) -> int:
        """Work until told to shut down; the end of the input ends the process from within."""
        from .. import __version__

        logging.getLogger("DEMISTCore").addHandler(_LogSender(self._send, self))
        logging.getLogger("DEMISTCore").setLevel(logging.INFO)
        self._send(None, "ready", protocol=PROTOCOL, version=__version__, pid=os.getpid())
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()
        while (request := self._queue.get()) is not None:
            self._work(request)
        return 0

    # --- main thread ---------------------------------------------------------------------------------------------

    def _work(self, request: dict[str, Any]) -> None:
        number, cancelled = request["id"], self._cancelled[request["id"]]
        self.current = number
        context = Context(request, self._send, self._cache, cancelled)
        try:
            from .jobs import RUN

            context.check()
            with memory_errors():
                told = RUN[request["do"]](context)
            self._send(number, "done", **told)
        except Cancelled:
            self._send(number, "cancelled")
        except Exception as error:
            self._say_failure(number, error)
        finally:
            self.current = None
            with self._lock:
                del self._cancelled[number]

    def _say_failure(self, number: int | None, error: Exception) -> None:
        """An error of a job as a message; whatever is wrong with the error itself, one is sent."""
        more = {}
        try:
            kind, message = explain(error)
            if kind == "internal":
                more["traceback"] = "".join(traceback.format_exception(error))
        except Exception:
            kind, message = "internal", f"DEMIST failed unexpectedly ({type(error).__name__}); see the log."
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if more:
                print(more["traceback"], file=sys.stderr, flush=True)
        self._send(number, "error", kind=kind, message=message, **more)

    # --- reader thread -------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while line := self._source.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE and not line.endswith(b"\n"):
                    self._send(
                        None, "error", kind="input", message=f"A line of more than {MAX_LINE:,} bytes is no request."
                    )
                    while rest := self._source.readline(1 << 16):
                        if rest.endswith(b"\n"):
                            break
                elif line.strip():
                    self._take_safely(line)
        except (OSError, ValueError):
            pass
        self._leave()

    def _take_safely(self, line: bytes) -> None:
        """No line ends the worker, and with it the jobs that wait."""
        try:
            self._take(line)
        except Exception as error:
            self._say_failure(None, error)

    def _take(self, line: bytes) -> None:
        try:
            request = decode(line)
        except ProtocolError as error:
            self._send(error.id, "error", kind="input", message=str(error))
            return
        number = request["id"]
        if request["do"] == "cancel":
            with self._lock:
                event = self._cancelled.get(request["target"])
            if event is not None:  # else it has ended already, and said so
                event.set()
            return
        if request["do"] == "shutdown":
            with self._lock:
                for event in self._cancelled.values():
                    event.set()
            self._queue.put(None)
            return
        with self._lock:
            taken = number in self._cancelled
            if not taken:
                self._cancelled[number] = threading.Event()
        if taken:
            self._send(number, "error", kind="input", message=f"There is a job {number} already; use another id.")
            return
        self._send(number, "accepted")
        self._queue.put(request)

    # --- the parent ----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            import psutil

            process = psutil.Process(self._parent)
        except Exception:  # not installed, or the parent is gone: getppid tells on POSIX
            process = None
        while True:
            time.sleep(_LOOK)
            gone = os.getppid() != self._parent if os.name != "nt" else process is not None and not process.is_running()
            if gone:
                self._leave()

    def _leave(self, code: int = 0) -> None:
        """End at once, in the middle of a computation if need be; images of a patient do not stay behind."""
        if self._private is not None and self._private.name.startswith(FOLDER_PREFIX):
            shutil.rmtree(self._private, ignore_errors=True)
        os._exit(code)


class _LogSender(logging.Handler):
    """Log lines as messages about the job that runs."""

    def __init__(self, send: Sender, worker: Worker) -> None:
        super().__init__(logging.INFO)
        self._send, self._worker = send, worker

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # a message that does not fit its arguments
            text = str(record.msg)
        self._send(self._worker.current, "log", level=record.levelname.lower(), text=text)


def explain(error: Exception) -> tuple[str, str]:
    """Kind and sentence of what went wrong, see :data:`DEMISTCore.worker.protocol.KINDS`."""
    if isinstance(error, BundleError):
        return "bundle", str(error)
    if isinstance(error, DemistError):
        return ("memory" if isinstance(error, MemoryShortage) else "input"), str(error)
    if isinstance(error, ModuleNotFoundError):
        return "dependency", f"The Python package {error.name} is missing; install DEMIST's dependencies and try again."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1)):
        return "input", disk_sentence(Path(os.fsdecode(error.filename or "a file")), error)
    if isinstance(error, OSError) and error.errno is not None:
        return "input", sentence(error)
    words = " ".join(str(error).split())
    shown = words if len(words) <= 200 else words[:197] + "..."
    return "internal", f"DEMIST failed unexpectedly ({type(error).__name__}: {shown}); see the log."


def main(private: str | None = None) -> int:
    """Take over standard input and output, and serve."""
    # What libraries print, C ones included, must not get between the messages.
    out, source = os.dup(1), os.dup(0)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    folder = None if private is None else Path(private)

    def write(line: bytes) -> None:
        try:
            while line:
                line = line[os.write(out, line) :]
        except OSError:  # nobody reads any more
            worker._leave()

    worker = Worker(os.fdopen(source, "rb"), Sender(write), folder)
    on_signals(worker._leave)
    return worker.run()
