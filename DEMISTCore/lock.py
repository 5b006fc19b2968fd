"""One writer to a folder: a lock that the operating system takes away when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import InputError

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"


class FolderBusy(InputError):
    """Another process holds the folder's lock."""


def in_use(folder: Path) -> bool:
    """Whether a folder holds anything but a lock and what a process has left that ended before it really began."""
    return any(path.name != LOCK_FILE and not path.name.startswith(".tmp-") for path in folder.iterdir())


class FolderLock:
    """Holds ``folder`` for this process while the block runs; a second one is refused in one sentence.

    Not a file whose presence counts: one of a killed process would lock for ever. The kernel's lock on the file is
    what counts (``flock``; on Windows ``msvcrt.locking``), and it ends with the process. Where a file system knows no
    locks, this is said in the log, and the work goes on.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, FolderLock(folder, "the training run"):
    ...     FolderLock(folder, "the training run").__enter__()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    DEMISTCore.lock.FolderBusy: ...
    """

    def __init__(self, folder: str | os.PathLike[str], what: str) -> None:
        self.folder, self.what = Path(folder), what
        self._stream: Any = None
        self._made: list[Path] = []

    def __enter__(self) -> FolderLock:
        """Take the lock; makes the folder.

        Raises:
            FolderBusy: another process holds it.
            InputError: the folder cannot be written to.
        """
        try:
            self._make()
            self._take()
        except OSError as error:
            self._tidy()
            raise InputError(f"Cannot write to {self.folder}: {error.strerror or error}; choose another.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # Windows removes no open file; the next run takes it as it is
                self._path.unlink()
            self._stream.close()
            self._stream = None
        self._tidy()

    @property
    def _path(self) -> Path:
        return self.folder / LOCK_FILE

    def _make(self) -> None:
        folder = self.folder
        while not folder.exists():
            self._made.append(folder)
            folder = folder.parent
        self.folder.mkdir(parents=True, exist_ok=True)

    def _tidy(self) -> None:
        """Folders that were made for nothing go."""
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._made = []

    def _take(self) -> None:
        while True:
            stream = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115
            try:
                _lock(stream.fileno())
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                    holder = self._holder(stream)
                    stream.close()
                    raise FolderBusy(
                        f"{self.folder} is being written by {holder}; wait until it has ended, or choose another "
                        f"folder for {self.what}."
                    ) from None
                log.warning(
                    "%s is on a file system without locks (%s): see to it that only one process writes there.",
                    self.folder,
                    error.strerror or error,
                )
            with contextlib.suppress(OSError):
                if not os.path.samestat(os.fstat(stream.fileno()), os.stat(self._path)):
                    stream.close()  # its holder removed it just now: lock the one that others see
                    continue
            if not self._path.exists():
                stream.close()
                continue
            stream.seek(0)
            stream.truncate()
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            json.dump({"process": os.getpid(), "host": platform.node(), "since": since}, stream)
            stream.flush()
            self._stream = stream
            return

    @staticmethod
    def _holder(stream: Any) -> str:
        try:
            stream.seek(0)
            told = json.loads(stream.read(4096))
            return f"process {int(told['process'])} on {str(told['host'])[:64]} since {str(told['since'])[:32]}"
        except (OSError, ValueError, TypeError, KeyError):
            return "another process"


@contextlib.contextmanager
def waiting(lock: FolderLock, seconds: float = 1.0) -> Iterator[FolderLock]:
    """Hold ``lock`` while the block runs; where another process has it, wait for that one, and say so once.

    Args:
        lock: of what is done by one process at a time.
        seconds: between two looks.

    Raises:
        InputError: the folder cannot be written to.
    """
    said = False
    while True:
        try:
            lock.__enter__()
        except FolderBusy as error:
            if not said:
                log.info("Waiting: %s", error)
            said = True
            time.sleep(seconds)
        else:
            break
    with contextlib.ExitStack() as stack:
        stack.push(lock)
        yield lock


def _lock(handle: int) -> None:
    """The whole file, at once or not.

    Raises:
        OSError: EACCES or EAGAIN where somebody else has it.
    """
    if sys.platform == "win32":
        import msvcrt

        # A byte far behind the content: Windows lets nobody read what is locked.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
